"""Experiment trackers: every round's numbers go to TensorBoard or MLflow; results do not change."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fedbench import ConfigError, RoundResult, hookimpl


def scalars(result: RoundResult) -> Iterator[tuple[str, float]]:
    """Yield every number of a round after its name, such as ``classifier/accuracy/mean``."""
    for rule, metrics in result.scores.items():
        for metric, scores in metrics.items():
            if scores.mean is None or scores.worst is None:
                continue
            yield f"{rule}/{metric}/mean", scores.mean
            yield f"{rule}/{metric}/worst", scores.worst
            for domain, value in scores.domains.items():
                if isinstance(value, (int, float)):
                    yield f"{rule}/{metric}/domain/{domain}", value
    yield from result.metrics.items()
    for way, sent in (("up", result.bytes_up), ("down", result.bytes_down)):
        for key, number in sent.items():
            yield f"bytes/{way}/{key}", number
    yield "seconds", result.seconds


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"needs {module}: pip install 'fedbench-toolkit[{extra}]'")


def _folder(directory: Path | None, name: str) -> Path:
    if directory is None:
        raise ConfigError(f"{name} needs a run directory; this run keeps nothing on disk")
    return directory / name


@dataclass(frozen=True, eq=False)
class TensorBoard:
    """Write every round's numbers for TensorBoard: ``tensorboard --logdir runs``.

    The files are in the run's directory, under ``tensorboard``.
    """

    def __post_init__(self) -> None:
        _need("tensorboard", "tensorboard")

    @hookimpl
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        writer = _writer(_folder(directory, "tensorboard"))
        for name, value in scalars(result):
            writer.add_scalar(name, value, result.round)
        writer.flush()


@functools.cache
def _writer(folder: Path) -> Any:
    """Return this process's only writer for a folder."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


@dataclass(frozen=True, eq=False)
class Mlflow:
    """Write every round's numbers to MLflow, one MLflow run for each run directory.

    Without ``uri`` they go to a file store in the run's directory, under ``mlflow``.
    """

    uri: Annotated[str | None, Field(description="URI of the tracking server or store")] = None
    experiment: Annotated[str, Field(min_length=1, description="experiment name")] = "fedbench"

    def __post_init__(self) -> None:
        _need("mlflow", "mlflow")

    @hookimpl
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        folder = _folder(directory, "mlflow")
        client, run = _mlflow_run(self.uri or folder.absolute().as_uri(), self.experiment, folder)
        for name, value in scalars(result):
            client.log_metric(run, name, value, step=result.round)


@functools.cache
def _mlflow_run(uri: str, experiment: str, folder: Path) -> tuple[Any, str]:
    """Return an MLflow client and the id of this directory's run, which it creates on first use.

    A resumed run continues the MLflow run that it started.
    """
    # MLflow still has its file store for local use, but only if this variable is set.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(experiment)
    number = known.experiment_id if known else client.create_experiment(experiment)
    tag = str(folder.parent.absolute())
    for run in client.search_runs([number]):
        if run.data.tags.get("fedbench.directory") == tag:
            return client, run.info.run_id
    made = client.create_run(number, tags={"fedbench.directory": tag}, run_name=folder.parent.name)
    return client, made.info.run_id
