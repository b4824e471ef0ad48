"""The run directory: which files a run leaves, and their names, which no other module knows.

Files are written atomically. Checkpoints and digests have their own formats, in
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
REPLACED = "replaced"
"""The folder of runs that a comparison has set aside because it repeats them."""
CLIENTS = "clients"
"""The folder of client states, in a run and in a kept checkpoint."""


class Taken(ConfigError):
    """The place where a run should be created holds something else."""


class RunDirectory:
    """A run's folder and its files. `create` makes a new one and never touches an existing run.

    Args:
        path: the folder, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # at the start
        self.config_file = path / CONFIG
        self.environment_file = path / "environment.json"
        self.lock_file = path / ".lock"
        self.partition_file = path / "partition.json"
        self.in_memory_folder = path / "in_memory"
        # one line per round
        self.rounds_file = path / "rounds.jsonl"
        self.digests_file = path / "digests.jsonl"
        # what resuming needs
        self.checkpoint_folder = path / "checkpoint"
        self.clients_folder = path / CLIENTS
        self.kept_folder = path / "checkpoints"
        # at the end
        self.model_file = path / "model.safetensors"
        self.personal_folder = path / "personal"
        self.result_file = path / "result.json"
        # written by a comparison when a run fails or is interrupted
        self.log_file = path / "run.log"
        self.error_file = path / "error.txt"
        self.interrupted_file = path / "interrupted.json"

    @classmethod
    def create(
        cls, path: Path, config: RunConfig, depends: Mapping[str, str] | None = None
    ) -> RunDirectory:
        """Create the folder with ``config.yaml`` and ``environment.json``.

        If several processes create the same folder at the same time, only one succeeds.

        Raises:
            Taken: when it exists and is not empty.
            Busy: when another process is creating it.
            ConfigError: when it cannot be written.
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
                # The config comes last, because it makes the folder a run that can be resumed.
                write_atomic(directory.environment_file, to_json(described))
                write_atomic(directory.config_file, config.to_yaml().encode())
            finally:
                claim.release()
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
        return directory

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return the directory of an existing run.

        Raises:
            ConfigError: when there is no run.
        """
        directory = cls(path)
        if not directory.exists:
            raise ConfigError(f"{path} holds no run (no {CONFIG})")
        return directory

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run, which is the case once it has a config."""
        return self.config_file.is_file()

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return self.result_file.is_file()

    @property
    def failed(self) -> bool:
        """Whether a comparison has recorded that the run failed."""
        return self.error_file.is_file()

    def lock(self) -> Claim:
        """Claim the folder for this process, and remove files that a killed one was writing.

        Raises:
            Busy: when another process is running in it.
            ConfigError: when it cannot be written, or a part of it is a link.
        """
        folders = self.checkpoint_folder, self.kept_folder, self.clients_folder
        for path in (*folders, self.personal_folder):
            refuse_link(path)
        try:
            # Workers of a killed run may hold the file a little longer than the run did.
            claim = Claim(self.lock_file, 0.5)
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(f"{self.path} cannot be written: {why}") from error
        for folder in (self.path, self.checkpoint_folder):
            remove_temporary(folder)
        return claim

    def refuse_finished(self) -> None:
        """Check that the run is not finished.

        Raises:
            ConfigError: when it is.
        """
        if self.finished:
            raise ConfigError(f"{self.path} is finished; `fedbench show {self.path}` prints it")

    def refuse_changed(self, config_hash: str, rounds: int) -> None:
        """Check that the run is as this process left it when it last held the claim.

        Args:
            config_hash: the hash of the run's config.
            rounds: the number of rounds that this process has written or restored.

        Raises:
            ConfigError: when another process has replaced, finished or continued it.
        """
        self.refuse_finished()
        if not self.exists or self.read_environment().config_hash != config_hash:
            raise ConfigError(f"{self.path} no longer holds this run; it was removed or replaced")
        if self.count_rounds() != rounds:
            raise ConfigError(
                f"{self.path}: another process has continued this run in the meantime; "
                f"`fedbench resume {self.path}` continues it from there"
            )

    def write_depends(self, depends: Mapping[str, str]) -> None:
        """Record in ``environment.json`` what the result depends on besides the config."""
        write_atomic(
            self.environment_file, to_json(replace(self.read_environment(), depends=depends))
        )

    def write_sources(self, sources: Mapping[str, str]) -> None:
        """Keep the source of plugins that are classes in memory, name -> text."""
        for name, text in sources.items():
            self.in_memory_folder.mkdir(exist_ok=True)
            write_atomic(self.in_memory_folder / f"{name}.py", text.encode())

    def write_partition(self, partition: Partition) -> None:
        """Write ``partition.json``."""
        write_atomic(self.partition_file, to_json(partition))

    def add_round(self, result: RoundResult) -> None:
        """Append the round to ``rounds.jsonl`` and flush it to disk."""
        append(self.rounds_file, json.dumps(json_ready(result)) + "\n")

    def cut_rounds(self, upto: int) -> list[RoundResult]:
        """Return the first ``upto`` rounds of ``rounds.jsonl``, and cut the file off after them.

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
        """Record why the run failed and what it printed; the folder need not exist yet."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.exists:
            write_atomic(self.config_file, config.to_yaml().encode())
        write_atomic(self.log_file, log.encode())
        write_atomic(self.error_file, reason.encode())
        self.interrupted_file.unlink(missing_ok=True)

    def interrupt(self, reason: str, log: str) -> Interrupted:
        """Record that the machine ended the run, how often, and what the run printed.

        If the run ended before it had a folder, the folder is created and holds nothing else.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        before = self.read_interrupted()
        now = Interrupted(before.times + 1 if before else 1, reason)
        write_atomic(self.log_file, log.encode())
        write_atomic(self.interrupted_file, to_json(now))
        return now

    def went_on(self) -> None:
        """Forget interruptions, of a run that has come as far as it should since."""
        self.interrupted_file.unlink(missing_ok=True)

    def forget_ends(self) -> None:
        """Remove the records of a failure or interruption, so that the run is tried again."""
        for file in (self.error_file, self.interrupted_file, self.log_file):
            file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything except the lock file, which this process holds."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != self.lock_file:
                entry.unlink()

    def discard(self) -> None:
        """Remove a run that ended before its first round, with its folder.

        What holds anything else, such as a tracker's record, or is another process's, stays.
        """
        files = self.config_file, self.environment_file, self.partition_file
        own = (*files, self.clients_folder, self.in_memory_folder)
        with suppress(OSError, ConfigError):
            claim = self.lock()
            try:
                if set(self.path.iterdir()) <= {*own, self.lock_file}:
                    shutil.rmtree(self.path)
            finally:
                claim.release()

    def tidy(self) -> None:
        """Remove what only an unfinished run needs."""
        for folder in (self.checkpoint_folder, self.clients_folder):
            shutil.rmtree(folder, ignore_errors=True)
        self.forget_ends()

    def count_rounds(self) -> int:
        """Return the number of complete lines in ``rounds.jsonl``, without checking them.

        A running process may be appending to it at the same time.
        """
        with suppress(OSError):
            return self.rounds_file.read_bytes().count(b"\n")
        return 0

    # `reading` is imported inside the methods, because checking files takes a second to import.

    def read_rounds(self, upto: int | None = None) -> list[RoundResult]:
        """Return the rounds, or the first ``upto`` of them; an incomplete last line is ignored.

        Raises:
            ConfigError: when the file is damaged, as in all methods below.
        """
        from . import reading

        return reading.rounds(self.rounds_file, upto)

    def read_result(self) -> Result | None:
        """Return the result; ``None`` if the run is not finished."""
        from . import reading

        return reading.result(self.result_file)

    def read_progress(self) -> tuple[list[RoundResult], Result | None]:
        """Return the rounds and the result, and check that they belong together."""
        rounds, result = self.read_rounds(), self.read_result()
        if result and result.rounds != len(rounds):
            what = f"{len(rounds)} rounds, but the result has {result.rounds}"
            raise ConfigError(f"{self.rounds_file}: damaged: {what}")
        return rounds, result

    def read_partition(self) -> Partition | None:
        """Return the partition; ``None`` if there is none yet."""
        from . import reading

        return reading.partition(self.partition_file)

    def read_environment(self) -> Environment:
        """Return what the result depends on besides the config; empty if there is no file."""
        from . import reading

        return reading.environment(self.environment_file) or Environment()

    def read_error(self) -> str | None:
        """Return why the run failed; ``None`` if it did not."""
        from . import reading

        return reading.text(self.error_file).strip() if self.failed else None

    def read_interrupted(self) -> Interrupted | None:
        """Return how the machine ended the run; ``None`` if it did not."""
        from . import reading

        return reading.interrupted(self.interrupted_file)


BEGUN = re.compile(
    r"\.lock|environment\.json|run\.log|interrupted\.json"
    rf"|\.(environment\.json|config\.yaml|run\.log|interrupted\.json)\..*\{TEMPORARY}"
)
"""The names of files that a run may leave if it is killed before its config is written."""


def _refuse_taken(path: Path) -> None:
    """Check that ``path`` holds nothing, or only what a run left that had no config yet.

    Raises:
        Taken: when it holds something else.
    """
    if not path.exists():
        return
    if not path.is_dir() or not all(BEGUN.fullmatch(entry.name) for entry in path.iterdir()):
        raise Taken(f"{path} already exists; choose another --out, or remove it first")


def unfinished(path: Path, config_hash: str) -> bool:
    """Return whether ``path`` holds an unfinished run of the config with that hash."""
    directory = RunDirectory(path)
    if directory.finished or not directory.exists:
        return False
    try:
        return directory.read_environment().config_hash == config_hash
    except ConfigError:
        return False


def free_name(parent: Path, name: str, config_hash: str) -> Path:
    """Return the first of ``parent/name``, ``parent/name-2``, ``parent/name-3`` ... that is usable.

    A path is usable if nothing is there, or an unfinished run of the same config.
    """
    path, number = parent / name, 1
    while path.exists() and not unfinished(path, config_hash):
        number += 1
        path = parent / f"{name}-{number}"
    return path


def find(paths: Iterable[Path]) -> list[Path]:
    """Return the run directories at or below ``paths``, sorted; a path may be a config file.

    What a comparison has set aside in `REPLACED` is found only below a path that names it.

    Raises:
        ConfigError: when there is no run at or below a path.
    """
    found: set[Path] = set()
    for path in paths:
        below = (f for f in path.rglob(CONFIG) if REPLACED not in f.relative_to(path).parts)
        here = {file.parent for file in (path, *below) if file.name == CONFIG}
        if not here:
            raise ConfigError(f"{path} holds no run (no {CONFIG} at or below it)")
        found |= here
    return sorted(found)
