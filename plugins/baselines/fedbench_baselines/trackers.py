"""Experiment trackers: rounds' numbers go to TensorBoard, MLflow or W&B; results do not change.

Every round is there once, also when a run was killed and its last rounds are played again. The
trackers need a run directory. The second run of ``fedbench verify`` is not tracked.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import Field

from fedbench import ConfigError, RoundResult, RunStatus, hookimpl
from fedbench.store.directory import RunDirectory
from fedbench.text import printable
from fedbench.types import ClientScores, Scores


def scalars(result: RoundResult) -> Iterator[tuple[str, float]]:
    """Yield every number of a round after its name, such as ``classifier/accuracy/mean``."""
    yield from _scores("", result.scores, result.client_scores)
    held_out = result.validation
    yield from _scores("validation/", held_out.domains, held_out.clients)
    for rule, sets in result.extra_scores.items():
        for metric, values in sets.items():
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    yield f"extra/{rule}/{metric}/{name}", value
    yield from result.metrics.items()
    for way, sent in (("up", result.bytes_up), ("down", result.bytes_down)):
        for key, number in sent.items():
            yield f"bytes/{way}/{key}", number
    yield "seconds", result.seconds
    if result.time is not None:
        yield "time", result.time


def _scores(
    start: str,
    domains: Mapping[str, Mapping[str, Scores]],
    clients: Mapping[str, Mapping[str, ClientScores]],
) -> Iterator[tuple[str, float]]:
    """Yield what was scored on domains and over clients; a value per class has no number."""
    for rule, metrics in domains.items():
        for metric, scores in metrics.items():
            if scores.mean is None or scores.worst is None:
                continue
            yield f"{start}{rule}/{metric}/mean", scores.mean
            yield f"{start}{rule}/{metric}/worst", scores.worst
            for domain, value in scores.domains.items():
                if isinstance(value, (int, float)):
                    yield f"{start}{rule}/{metric}/domain/{domain}", value
    for rule, found in clients.items():
        for metric, one in found.items():
            for name in ("mean", "plain", "std", "worst_tenth"):
                yield f"{start}clients/{rule}/{metric}/{name}", getattr(one, name)


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"needs {module}: pip install 'fedbench-toolkit[{extra}]'")


def _folder(directory: Path | None, name: str) -> Path:
    """Return the tracker's folder in the run directory.

    Raises:
        ConfigError: when there is no run directory, or a link would lead out of it.
    """
    if directory is None:
        raise ConfigError(f"{name} needs a run directory; this run keeps nothing on disk")
    folder = directory / name
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise ConfigError(f"{path} is a link; a run writes into its own folder")
    return folder


_WRITERS: dict[Path | None, Any] = {}
"""TensorBoard's writers of the runs that are under way in this process, by run directory."""

_RUNS: dict[Path | None, MlflowRun] = {}
"""The MLflow runs of the runs that are under way in this process, by run directory."""


@dataclass(frozen=True, eq=False)
class TensorBoard:
    """Write every round's numbers for TensorBoard: ``tensorboard --logdir runs``.

    The files are in the run's directory, under ``tensorboard``.
    """

    def __post_init__(self) -> None:
        _need("tensorboard", "tensorboard")

    @hookimpl
    def run_start(self, history: Sequence[RoundResult], directory: Path | None) -> None:
        folder = _folder(directory, "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        # The last round again: the run may have ended between its checkpoint and these files.
        again = history[-1:]
        # TensorBoard drops what earlier files say about this step and later ones.
        first = again[0].round if again else 1
        _WRITERS[directory] = SummaryWriter(str(folder), purge_step=first)
        for result in again:
            self.round_end(result, directory)

    @hookimpl
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        writer = _WRITERS[directory]
        for name, value in scalars(result):
            writer.add_scalar(printable(name), value, result.round)
        writer.flush()

    @hookimpl
    def run_end(self, directory: Path | None) -> None:
        writer = _WRITERS.pop(directory, None)
        if writer:
            writer.close()


@dataclass(frozen=True, eq=False)
class Mlflow:
    """Write every round's numbers to MLflow, one MLflow run for each run directory.

    Without ``uri`` they go to a file store in the run's directory, under ``mlflow``. The MLflow run
    ends as FINISHED, FAILED with the error as its tag ``fedbench.error``, or KILLED; a resumed run
    reopens it. A value that MLflow has stays: a round that is played again has the same numbers,
    except its seconds.
    """

    addresses: ClassVar[tuple[str, ...]] = ("uri",)

    uri: Annotated[str | None, Field(description="URI of the tracking server or store")] = None
    experiment: Annotated[str, Field(min_length=1, description="experiment name")] = "fedbench"

    def __post_init__(self) -> None:
        _need("mlflow", "mlflow")

    @hookimpl
    def run_start(self, history: Sequence[RoundResult], directory: Path | None) -> None:
        folder = _folder(directory, "mlflow")
        uri = self.uri or folder.absolute().as_uri()
        _RUNS[directory] = run = open_run(uri, self.experiment, folder)
        for result in history:
            run.log(result)

    @hookimpl
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        _RUNS[directory].log(result)

    @hookimpl
    def run_end(self, status: RunStatus, error: str | None, directory: Path | None) -> None:
        run = _RUNS.pop(directory, None)
        if run:
            run.end(status, error)


_WANDB: dict[Path | None, Any] = {}
"""The W&B runs of the runs that are under way in this process, by run directory."""


@dataclass(frozen=True, eq=False)
class Wandb:
    """Write every round's numbers for Weights & Biases, one W&B run for each run directory.

    Without ``host`` nothing leaves the machine: they are in the run's directory, under ``wandb``,
    as an offline run, which ``wandb sync`` sends. With it, they go there at once, after
    ``wandb login``. A resumed run continues its W&B run; offline it is written anew, with all
    rounds. The config goes along. A run that fails has the error in its summary, under
    ``fedbench.error``.
    """

    addresses: ClassVar[tuple[str, ...]] = ("host",)

    host: Annotated[
        str | None, Field(description="server to send to, such as https://api.wandb.ai")
    ] = None
    project: Annotated[str, Field(min_length=1, description="project name")] = "fedbench"
    entity: Annotated[str | None, Field(description="user or team; default your own")] = None

    def __post_init__(self) -> None:
        _need("wandb", "wandb")

    @hookimpl
    def run_start(self, history: Sequence[RoundResult], directory: Path | None) -> None:
        if directory and not (directory / "wandb").is_symlink():
            for earlier in (directory / "wandb").glob("*run-*"):  # with links of its own
                if not earlier.is_symlink():
                    shutil.rmtree(earlier)
        folder = _folder(directory, "wandb")
        assert directory
        _WANDB[directory] = run = self._open(directory, folder)
        for result in history:  # what the server has already, it ignores
            _log(run, result)

    @hookimpl
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        _log(_WANDB[directory], result)

    @hookimpl
    def run_end(self, status: RunStatus, error: str | None, directory: Path | None) -> None:
        run = _WANDB.pop(directory, None)
        if run is None:
            return
        if error:
            run.summary[ERROR] = printable(error)[:LONGEST]
        run.finish(exit_code=0 if status == "finished" else 1)

    def _open(self, directory: Path, folder: Path) -> Any:
        """Begin the W&B run of a run directory, or continue it."""
        if self.host is None:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it is read at the import
        import wandb

        memory = folder / "run_id"
        if not memory.is_file():
            folder.mkdir(exist_ok=True)
            memory.write_text(secrets.token_hex(8))
        online = {"base_url": self.host, "resume": "allow"} if self.host else {}
        return wandb.init(
            project=self.project,
            entity=self.entity,
            dir=directory,
            id=memory.read_text(),
            name=printable(directory.absolute().name),
            config=yaml.safe_load(RunDirectory(directory).config_file.read_text("utf-8")),
            mode="online" if self.host else "offline",
            reinit="create_new",
            settings=wandb.Settings(**_WANDB_SETTINGS, **online),
        )


_WANDB_SETTINGS: Mapping[str, Any] = {
    "console": "off",  # it would replace the standard streams
    "silent": True,
    "symlink": False,
    "save_code": False,
    **dict.fromkeys(("disable_code", "disable_git", "disable_job_creation"), True),
    **dict.fromkeys(("x_disable_meta", "x_disable_stats", "x_disable_machine_info"), True),
}
"""Numbers only: no output, no code, nothing about the machine."""


def _log(run: Any, result: RoundResult) -> None:
    run.log({printable(name): value for name, value in scalars(result)}, step=result.round)


ERROR, DIRECTORY = "fedbench.error", "fedbench.directory"
ENDINGS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
"""How a run ended -> MLflow's word for it."""

BATCH, LONGEST = 1000, 5000
"""Numbers that MLflow takes at a time, and characters of a tag."""


@dataclass(frozen=True, eq=False)
class MlflowRun:
    """A run in MLflow that is under way.

    Args:
        client: an `mlflow.tracking.MlflowClient`.
        number: the id of the run in MLflow.
        logged: metric -> its last round that MLflow had when the run was opened.
    """

    client: Any
    number: str
    logged: dict[str, int]

    def log(self, result: RoundResult) -> None:
        """Send the numbers of a round that MLflow does not have yet."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        named = [(metric_name(name), value) for name, value in scalars(result)]
        new = [
            Metric(name, value, now, result.round)
            for name, value in named
            if result.round > self.logged.get(name, 0)
        ]
        for start in range(0, len(new), BATCH):
            self.client.log_batch(self.number, metrics=new[start : start + BATCH])

    def end(self, status: RunStatus, error: str | None) -> None:
        """Give the run its final status."""
        self.client.set_terminated(self.number, ENDINGS[status])
        if error:
            self.client.set_tag(self.number, ERROR, printable(error)[:LONGEST])


def metric_name(name: str) -> str:
    """Return ``name`` in the letters that MLflow allows: ``a (b)`` is ``a _28_b_29_``."""
    plain = re.sub(r"[^/\w.\- ]", lambda found: f"_{ord(found[0]):x}_", name)
    return "/".join(part if part.strip(".") else f"_{part}" for part in plain.split("/"))[:250]


def open_run(uri: str, experiment: str, folder: Path) -> MlflowRun:
    """Open the MLflow run that a run directory began, or begin one.

    Args:
        uri: of the tracking server or store.
        experiment: the experiment to begin it in.
        folder: the tracker's folder in the run directory, which remembers the run's id.
    """
    # MLflow still has its file store for local use, but only if this variable is set. It makes the
    # folders of a store once in a process; a run directory may have been removed since.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    (folder / ".trash").mkdir(parents=True, exist_ok=True)
    from mlflow.tracking import MlflowClient

    client, memory = MlflowClient(tracking_uri=uri), folder / "run_id"
    directory = folder.parent.absolute()
    run = _known_run(client, memory)
    if run is None:
        run = client.create_run(_experiment(client, experiment), run_name=printable(directory.name))
        memory.write_text(run.info.run_id)
    number: str = run.info.run_id
    client.update_run(number, status="RUNNING")
    client.set_tag(number, DIRECTORY, printable(str(directory))[:LONGEST])
    if ERROR in run.data.tags:
        client.delete_tag(number, ERROR)
    steps = {
        name: max(metric.step for metric in client.get_metric_history(number, name))
        for name in run.data.metrics
    }
    return MlflowRun(client, number, steps)


def _known_run(client: Any, memory: Path) -> Any:
    """Return the run whose id is in the file ``memory``, ``None`` if there is none any more."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(memory.read_text().strip())
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _experiment(client: Any, name: str) -> Any:
    """Return the id of an experiment, which is made if there is none."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another run made it at the same time
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    return known.experiment_id
