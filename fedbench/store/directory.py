"""The run directory: what a run leaves on disk, under which names; no other module knows them.

Files are written atomically. Checkpoints and digests have formats of their own, in
`fedbench.store.checkpoint` and `fedbench.store.digests`, which take their paths from here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .claim import Claim
from .client_states import ClientStates as ClientStates
from .contents import Environment, Interrupted
from .environment import environment
from .files import TEMPORARY, append, json_ready, refuse_link, remove_temporary, to_json
from .files import write_atomic as write_atomic

if TYPE_CHECKING:
    from ..config.model import RunConfig
    from ..types import RoundResult, Weights
    from .contents import Partition, Result


CONFIG = "config.yaml"
CLIENTS = "clients"
"""The folder of client states, in a run and in a kept checkpoint."""


class Taken(ConfigError):
    """There is something else where a run was to be created."""


class RunDirectory:
    """A run's folder and its files. `create` makes a new one and never touches an existing run.

    Args:
        path: the folder; nothing needs to be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # at the start
        self.config_file = path / CONFIG
        self.environment_file = path / "environment.json"
        self.lock_file = path / ".lock"
        self.partition_file = path / "partition.json"
        # a line per round
        self.rounds_file = path / "rounds.jsonl"
        self.digests_file = path / "digests.jsonl"
        # what resuming needs
        self.checkpoint_folder = path / "checkpoint"
        self.clients_folder = path / CLIENTS
        self.kept_folder = path / "checkpoints"
        # at the end
        self.model_file = path / "model.safetensors"
        self.result_file = path / "result.json"
        # what a comparison leaves of a run that failed or was interrupted
        self.log_file = path / "run.log"
        self.error_file = path / "error.txt"
        self.interrupted_file = path / "interrupted.json"

    @classmethod
    def create(
        cls, path: Path, config: RunConfig, depends: Mapping[str, str] | None = None
    ) -> RunDirectory:
        """Make the folder with ``config.yaml`` and ``environment.json``.

        Of several processes that create the same folder at the same time, one does.

        Raises:
            Taken: when it exists and is not empty.
            Busy: when another process is creating it.
            ConfigError: when it can't be written.
        """
        directory = cls(path)
        described = replace(
            environment(config.device), config_hash=config.hash, depends=depends or {}
        )
        try:
            _refuse_taken(path)
            path.mkdir(parents=True, exist_ok=True)
            claim = directory.lock()
            try:
                _refuse_taken(path)
                # The config comes last: with it the folder is a run that can be resumed.
                write_atomic(directory.environment_file, to_json(described))
                write_atomic(directory.config_file, config.to_yaml().encode())
            finally:
                claim.release()
        except OSError as error:
            raise ConfigError(f"{path} can't be written: {error.strerror or error}") from error
        return directory

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return the directory of a run that exists.

        Raises:
            ConfigError: when there is none.
        """
        directory = cls(path)
        if not directory.exists:
            raise ConfigError(f"{path} holds no run (no {CONFIG})")
        return directory

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run, which it does once it has its config."""
        return self.config_file.is_file()

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return self.result_file.is_file()

    @property
    def failed(self) -> bool:
        """Whether a comparison has noted here that the run failed."""
        return self.error_file.is_file()

    def lock(self) -> Claim:
        """Claim the folder for this process, and remove what a killed one was writing.

        Raises:
            Busy: when another process is running in it.
            ConfigError: when it can't be written, or a part of it is a link that leads elsewhere.
        """
        for path in (self.checkpoint_folder, self.kept_folder, self.clients_folder):
            refuse_link(path)
        try:
            claim = Claim(self.lock_file, 0.5)  # a killed run's workers may hold it a moment longer
        except OSError as error:
            raise ConfigError(f"{self.path} can't be written: {error.strerror or error}") from error
        for folder in (self.path, self.checkpoint_folder):
            remove_temporary(folder)
        return claim

    def refuse_finished(self) -> None:
        """Check that there is something left to run.

        Raises:
            ConfigError: when the run is finished.
        """
        if self.finished:
            raise ConfigError(f"{self.path} is finished; `fedbench show {self.path}` prints it")

    def refuse_changed(self, config_hash: str, rounds: int) -> None:
        """Check that a run is as this process left it when it last had the claim.

        Args:
            config_hash: of the run's config.
            rounds: how many rounds this process has written or restored.

        Raises:
            ConfigError: when another process has replaced, finished or continued it.
        """
        self.refuse_finished()
        if not self.exists or self.read_environment().config_hash != config_hash:
            raise ConfigError(f"{self.path} no longer holds this run; it was removed or replaced")
        if self.count_rounds() != rounds:
            raise ConfigError(
                f"{self.path}: another process has continued this run meanwhile; "
                f"`fedbench resume {self.path}` continues it from there"
            )

    def write_depends(self, depends: Mapping[str, str]) -> None:
        """Note in ``environment.json`` what the result depends on besides the config."""
        write_atomic(
            self.environment_file, to_json(replace(self.read_environment(), depends=depends))
        )

    def write_partition(self, partition: Partition) -> None:
        """Write ``partition.json``."""
        write_atomic(self.partition_file, to_json(partition))

    def add_round(self, result: RoundResult) -> None:
        """Append the round to ``rounds.jsonl`` and flush it."""
        append(self.rounds_file, json.dumps(json_ready(result)) + "\n")

    def cut_rounds(self, upto: int) -> list[RoundResult]:
        """Return the first ``upto`` rounds of ``rounds.jsonl`` and cut the file there.

        Raises:
            ConfigError: when there are fewer, or a line is damaged.
        """
        path, found = self.rounds_file, self.read_rounds(upto)
        if len(found) < upto:
            raise ConfigError(f"{path}: has {len(found)} rounds, the checkpoint {upto}")
        lines = path.read_bytes().split(b"\n")[:upto] if found else []
        write_atomic(path, b"".join(line + b"\n" for line in lines))
        return found

    def finish(self, result: Result, weights: Weights) -> None:
        """Write ``model.safetensors`` and ``result.json``, then remove what only resuming needs."""
        from safetensors.torch import save

        plain = {name: value.contiguous() for name, value in weights.items()}
        write_atomic(self.model_file, save(plain))
        write_atomic(self.result_file, to_json(result))
        self.tidy()

    def fail(self, config: RunConfig, reason: str, log: str) -> None:
        """Note why the run failed and what it printed; it may have ended before it had a folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.exists:
            write_atomic(self.config_file, config.to_yaml().encode())
        write_atomic(self.log_file, log.encode())
        write_atomic(self.error_file, reason.encode())
        self.interrupted_file.unlink(missing_ok=True)

    def interrupt(self, reason: str, log: str) -> Interrupted:
        """Count that the machine ended the run, and keep what the run printed.

        The run may have ended before it had a folder, which then holds nothing else.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        before = self.read_interrupted()
        now = Interrupted(before.times + 1 if before else 1, reason)
        write_atomic(self.log_file, log.encode())
        write_atomic(self.interrupted_file, to_json(now))
        return now

    def forget_ends(self) -> None:
        """Forget how the run ended so far, so that it is tried again."""
        for file in (self.error_file, self.interrupted_file, self.log_file):
            file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything but the lock file, which this process holds."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != self.lock_file:
                entry.unlink()

    def tidy(self) -> None:
        """Remove what only an unfinished run needs."""
        for folder in (self.checkpoint_folder, self.clients_folder):
            shutil.rmtree(folder, ignore_errors=True)
        self.forget_ends()

    def count_rounds(self) -> int:
        """Return how many rounds are written, as far as they can be counted without reading them.

        A run may be adding one meanwhile.
        """
        with suppress(OSError):
            return self.rounds_file.read_bytes().count(b"\n")
        return 0

    # Reading is done in functions: the modules that check files take a second to import.

    def read_rounds(self, upto: int | None = None) -> list[RoundResult]:
        """Return the rounds, or the first ``upto`` of them; half a last line is left out.

        Raises:
            ConfigError: when the file is damaged. The same holds for all that is read below.
        """
        from . import reading

        return reading.rounds(self.rounds_file, upto)

    def read_result(self) -> Result | None:
        """Return the result; ``None`` for a run that is not finished."""
        from . import reading

        return reading.result(self.result_file)

    def read_progress(self) -> tuple[list[RoundResult], Result | None]:
        """Return the rounds and the result, which must belong together."""
        rounds, result = self.read_rounds(), self.read_result()
        if result and result.rounds != len(rounds):
            what = f"{len(rounds)} rounds, the result has {result.rounds}"
            raise ConfigError(f"{self.rounds_file}: damaged: {what}")
        return rounds, result

    def read_partition(self) -> Partition | None:
        """Return the partition; ``None`` for a run without one."""
        from . import reading

        return reading.partition(self.partition_file)

    def read_environment(self) -> Environment:
        """Return what the result depends on besides the config; nothing is known without a file."""
        from . import reading

        return reading.environment(self.environment_file) or Environment()

    def read_error(self) -> str | None:
        """Return why the run failed; ``None`` when it did not."""
        from . import reading

        return reading.text(self.error_file).strip() if self.failed else None

    def read_interrupted(self) -> Interrupted | None:
        """Return how the machine ended the run; ``None`` when it did not."""
        from . import reading

        return reading.interrupted(self.interrupted_file)


BEGUN = re.compile(
    r"\.lock|environment\.json|run\.log|interrupted\.json"
    rf"|\.(environment\.json|config\.yaml|run\.log|interrupted\.json)\..*\{TEMPORARY}"
)
"""Names of files in the folder of a run that was killed before it had its config."""


def _refuse_taken(path: Path) -> None:
    """Check that nothing is at ``path``, or only what a killed run left before it had its config.

    Raises:
        Taken: when there is something else.
    """
    if not path.exists():
        return
    if not path.is_dir() or not all(BEGUN.fullmatch(entry.name) for entry in path.iterdir()):
        raise Taken(f"{path} exists already; choose another --out, or remove it first")


def unfinished(path: Path, config_hash: str) -> bool:
    """Whether ``path`` holds an unfinished run of the config with that hash."""
    directory = RunDirectory(path)
    if directory.finished or not directory.exists:
        return False
    try:
        return directory.read_environment().config_hash == config_hash
    except ConfigError:
        return False


def free_name(parent: Path, name: str, config_hash: str) -> Path:
    """Return ``parent/name``, or ``name-2``, ``name-3`` ..., the first that can be used.

    That is one that does not exist, or an unfinished run of the same config.
    """
    path, number = parent / name, 1
    while path.exists() and not unfinished(path, config_hash):
        number += 1
        path = parent / f"{name}-{number}"
    return path


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the run directories at or below ``paths``, sorted; a path may be a run's config.

    Raises:
        ConfigError: for a path with no run at or below it.
    """
    found: set[Path] = set()
    for path in paths:
        here = {file.parent for file in (path, *path.rglob(CONFIG)) if file.name == CONFIG}
        if not here:
            raise ConfigError(f"{path} holds no run (no {CONFIG} at or below it)")
        found |= here
    return sorted(found)
