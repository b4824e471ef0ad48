"""One run, readable top to bottom: `Run.rounds` is the loop.

for result in Run(config).rounds():
    print(result.round, result.scores["classifier"]["accuracy"].mean)
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..ambient import settled
from ..config import yamlfile
from ..config.construct import build, build_plugins
from ..config.kept import check_same, resolve_kept
from ..config.model import RunConfig
from ..config.resolve import load_config
from ..contracts import Metric, Workers
from ..device import open_device
from ..errors import ConfigError, FedbenchError
from ..plugins.discovery import discover
from ..plugins.registry import Registry
from ..runtime import Runtime, partition_table
from ..store import checkpoint, digests, fingerprint, personal
from ..store.claim import Claim
from ..store.client_states import ClientStates
from ..store.contents import Result
from ..store.directory import RunDirectory
from ..store.files import default_data_root
from ..store.fingerprint import Fingerprint
from ..types import RoundResult, Scores, ServerState
from ..watching import UNWATCHED, Watch
from .evaluation import reported, stops, views
from .observers import Observers, conclusions
from .round import Progress, Rounds
from .saving import SPOILT, Saving, intact
from .summary import summarise

NO_ROUND = "no round has been run yet; call Run.run(), or iterate over Run.rounds(), first"

USED = (
    "this Run has been used, and a Run runs once; Run(config) makes another, and "
    "Run.resume(directory) continues one that was interrupted"
)


class Run:
    """A run of one config, which runs once.

    Args:
        config: a resolved `RunConfig`, or the path of a YAML file.
        directory: where to keep the run, which must not exist yet; ``None`` writes nothing.
        registry: what is installed; default `fedbench.discover`.
        data_root: where data sets look for files; default ``FEDBENCH_DATA`` or the user's cache.
        progress: called after each client.
        checkpoint_seconds: a checkpoint is written at the end of a round when the last one is this
            old, and when the run is interrupted. Only with a directory.
        checkpoint_rounds: also write one after this many rounds; ``None`` for time alone.
        keep_checkpoints: keep every checkpoint in ``checkpoints/``, for `fedbench.engine.verify`.
        keep_personal: keep the clients' own models at the end, in ``personal/``. Only with a
            directory, and with a plugin that makes such models.
        watch: observes hook calls, phases and clients' turns.
        observed: whether to call ``run_start``, ``round_end`` and ``run_end``, which change no
            number; a run that only verifies another leaves them out.

    Raises:
        ConfigError: for a config that can't be used, or a directory that exists or can't be
            written.
    """

    def __init__(
        self,
        config: RunConfig | str | Path,
        directory: str | Path | None = None,
        *,
        registry: Registry | None = None,
        data_root: Path | None = None,
        progress: Progress | None = None,
        checkpoint_seconds: float = 60.0,
        checkpoint_rounds: int | None = None,
        keep_checkpoints: bool = False,
        keep_personal: bool = False,
        watch: Watch = UNWATCHED,
        observed: bool = True,
    ) -> None:
        registry = self.registry = registry or discover()
        self.config = config if isinstance(config, RunConfig) else load_config(registry, config)
        open_device(self.config.device, self.config.precision)
        self.data_root = data_root or default_data_root()
        self.directory = None
        if directory:
            depends = fingerprint.of_run(self.registry, self.config)
            self.directory = RunDirectory.create(Path(directory), self.config, depends)
        self.history: list[RoundResult] = []
        self.state: ServerState | None = None
        self.digests: Mapping[str, Any] = {}
        self.keep_personal = keep_personal
        self.watch, self.observed = watch, observed
        self._digested = bool(directory) or not observed  # to keep, or to compare with kept ones
        self.progress = progress or (lambda *_: None)
        folder = self.directory.clients_folder if self.directory else None
        self._clients = ClientStates(folder)
        self._owners: dict[str, str] = {}
        self._claim: Claim | None = None
        self._used = self._counted = False
        self._workers: Workers | None = None
        self._observers: Observers | None = None
        self._saving = Saving(checkpoint_seconds, checkpoint_rounds, keep_checkpoints)
        self._personal: str | None = None

    @classmethod
    def resume(
        cls,
        directory: str | Path,
        config: RunConfig | None = None,
        *,
        registry: Registry | None = None,
        **more: Any,
    ) -> Run:
        """Return the unfinished run of a directory, ready to continue from its last checkpoint.

        Without a checkpoint it starts from round 1. Its result is bit-identical to that of a run
        that was never interrupted.

        Args:
            directory: the run directory.
            config: the run's config, perhaps with another executor; default that of the directory,
                provided that it names no machine to connect to (`fedbench.config.kept`).
            registry: what is installed; default `fedbench.discover`.
            more: see `Run`.

        Raises:
            ConfigError: when the directory holds no run, a finished one, another config or a
                damaged checkpoint.
        """
        found = RunDirectory.open(Path(directory))
        if found.finished:
            found.tidy()
        found.refuse_finished()
        claim = found.lock()
        try:
            found.refuse_finished()  # another process may have finished it just now
            registry = registry or discover()
            kept = yamlfile.read(found.config_file)
            config = config or resolve_kept(registry, kept)
            check_same(registry, kept, config)
            run = cls(config, registry=registry, **more)
            run.directory, run._claim, run._digested = found, claim, True
            run._restore(found)
        except BaseException:
            claim.release()
            raise
        return run

    def _restore(self, directory: RunDirectory) -> None:
        path, done = directory.path, 0
        if checkpoint.exists(path):
            self._refuse_changes(directory, fingerprint.of_run(self.registry, self.config))
            found = checkpoint.read(path, self.config)
            self.start_from(found, [])
            done = found.state.round
        else:
            self._clients = ClientStates(directory.clients_folder)
            self._clients.restore({}, {})
        self.history = directory.cut_rounds(done)
        digests.cut(path, done)
        checkpoint.cut(path, done)

    def _refuse_changes(self, directory: RunDirectory, now: Fingerprint) -> None:
        """Refuse to continue a run when what it depends on has changed since it began."""
        if changes := fingerprint.changes(fingerprint.kept(directory.read_environment()), now):
            raise ConfigError(
                f"{directory.path} cannot be resumed, since its later rounds would not fit its "
                f"earlier ones: {'; '.join(changes)}. Restore what changed, or start a new run "
                "with another --out"
            )

    def start_from(self, found: checkpoint.Restored, history: Sequence[RoundResult]) -> None:
        """Let `rounds` continue after a checkpoint; ``history`` holds the rounds up to it."""
        self.state, self._owners, self._clients = found.state, found.owners, found.clients
        self.history = list(history)

    def rounds(self) -> Generator[RoundResult, None, None]:
        """Run round after round, and yield the result of each when it is finished.

        A resumed run yields the remaining rounds.

        Raises:
            FedbenchError: for what a user can fix: a plugin that breaks a rule, a loss that is
                not finite, a `Run` that has been used.
        """
        if self._used:
            raise FedbenchError(USED)
        self._used = True
        return self._rounds()

    def _rounds(self) -> Generator[RoundResult, None, None]:
        self._saving.begin(self.state.round if self.state else 0)
        try:
            self._claim_directory()
            rounds = self._open()
            state = self.state or self._initial_state(rounds)
            config, higher = self.config, self._higher_is_better
            while state.round < config.rounds and not stops(config, self.history, higher):
                state, result = self._play(rounds, state, state.round + 1)
                self._keep(rounds, state, result)
                if self._saving.due(state.round):
                    self._checkpoint()
                yield result
            if self.directory:
                self._claim_directory()
                self._keep_personal(rounds, state)
                self.directory.finish(self.summary(), state.weights)
        except BaseException as error:
            try:
                self._checkpoint_after(error)
            finally:
                self._tell_end(error)
            raise
        else:
            self._tell_end(None)
        finally:
            self._close()

    def _keep_personal(self, rounds: Rounds, state: ServerState) -> None:
        """Write the clients' own models, if they are to be kept."""
        if self.directory is None or not self.keep_personal:
            return
        with settled(), self.runtime.streams.scope("server", state.round):
            models = rounds.personal_models(state)
            self._personal = personal.write(self.directory.personal_folder, models)

    def _tell_end(self, error: BaseException | None) -> None:
        if self._observers:
            self._observers.end(error)

    def _claim_directory(self) -> None:
        """Make sure that only this process writes into the directory; call it before writing.

        Without a claim, and where the lock file was removed, another process may have run there.

        Raises:
            ConfigError: when another process runs there, or has done since this run was made.
        """
        if self.directory is None or (self._claim and self._claim.holds):
            return
        self._release()
        claim = self.directory.lock()
        try:
            self.directory.refuse_changed(self.config.hash, len(self.history))
        except BaseException:
            claim.release()
            raise
        self._claim = claim

    def _release(self) -> None:
        """Let other processes have the directory."""
        if self._claim:
            self._claim.release()
            self._claim = None

    def _open(self) -> Rounds:
        """Load data, partition and model, and start the workers."""
        config = self.config
        with settled():
            runtime = self.runtime = Runtime(
                config, self.registry, self.data_root, watch=self.watch
            )
        if self.keep_personal and not runtime.plugins.calls("personalize"):
            raise ConfigError(
                "the clients' own models cannot be kept: no plugin of this run makes any "
                "(`personalize`)"
            )
        if self.state:
            checkpoint.check_weights(self.state, runtime.initial)
        metrics = self._metrics
        self._workers = build(self.registry, "executor", config.executor).open(runtime)
        if self.directory:
            if self.state:
                self._refuse_changes(self.directory, runtime.depends)
            depends = {**fingerprint.of_run(self.registry, config), **runtime.depends}
            self.directory.write_depends(depends)
            self.directory.write_partition(partition_table(runtime))
        if self.observed:  # last: what they open must not be copied into workers
            self._observers = Observers(runtime, self.directory.path if self.directory else None)
            self._observers.start(self.history)
        parts = runtime, self._workers, self._clients, self._owners, metrics, self.progress
        return Rounds(*parts, digested=self._digested)

    def _initial_state(self, rounds: Rounds) -> ServerState:
        with settled(), self.runtime.streams.scope("server", 0):
            return rounds.initial_state()

    def _play(
        self, rounds: Rounds, state: ServerState, number: int
    ) -> tuple[ServerState, RoundResult]:
        """Play one round; return the state after it and its result, timed."""
        started = time.perf_counter()
        with settled(), self.runtime.streams.scope("server", number):
            state, result = rounds.play(state, number)
        seconds = time.perf_counter() - started - result.personal_seconds
        return state, replace(result, seconds=seconds)

    def _keep(self, rounds: Rounds, state: ServerState, result: RoundResult) -> None:
        """Record a finished round: write it, adopt its state, and call the observers."""
        self._claim_directory()
        line: Mapping[str, Any] = {}
        if self._digested:
            line = digests.line(result.round, rounds.digests, digests.of_state(state))
        if self.directory:
            digests.add(self.directory.path, line)
            self.directory.add_round(result)
        self.history.append(result)
        if result.scores and not self._counted:
            self._counted = bool(self.accuracy())  # refuses a metric without one number per domain
        self.state, self.digests = state, line
        self._clients.commit(result.round)
        if self._observers:
            self._observers.round(result)

    def _checkpoint(self) -> None:
        """Write a checkpoint of the rounds so far, if the run has a directory."""
        self._claim_directory()
        if self.directory and self.state:
            self._saving.write(
                self.directory, self.config.hash, self.state, self._owners, self._clients
            )

    def _checkpoint_after(self, error: BaseException) -> None:
        """Write a checkpoint of the rounds before the one that ended in an error, if it can."""
        if not (self._claim and self.state and self._saving.lacks(self.state.round)):
            return
        if intact(self.state, self.digests):
            self._checkpoint()
        else:
            error.add_note(SPOILT.format(self.state.round))

    def _close(self) -> None:
        """Stop the workers and release the directory's lock."""
        if self._workers:
            self._workers.close()
            self._workers = None
        self._clients.close()
        self._release()

    @cached_property
    def _metrics(self) -> dict[str, Metric]:
        """The run's metrics, by name."""
        return {
            name: build(self.registry, "metric", {"name": name, **given})
            for name, given in self.config.metrics.items()
        }

    @property
    def _higher_is_better(self) -> bool:
        """Whether a higher value of the reported metric is better."""
        return self._metrics[self.config.accuracy.metric].higher_is_better

    def run(self) -> dict[str, Any]:
        """Run all rounds and return `result`."""
        for _ in self.rounds():
            pass
        return self.result()

    def accuracy(self) -> Scores:
        """Return the run's accuracy by its rule, over the rounds so far.

        Raises:
            FedbenchError: before the first round.
        """
        if not self.history:
            raise FedbenchError(NO_ROUND)
        rule = self.config.accuracy
        return reported(rule, views(self.history, rule), self._higher_is_better)

    def summary(self) -> Result:
        """Return the run's result over the rounds so far.

        Raises:
            FedbenchError: before the first round.
        """
        if self.state is None:
            raise FedbenchError(NO_ROUND)
        weights, higher = self.state.weights, self._higher_is_better
        found = summarise(self.registry, self.config, self.history, weights, higher)
        said = conclusions(build_plugins(self.registry, self.config), self.history)
        return replace(found, personal_sha256=self._personal, conclusions=said)

    def result(self) -> dict[str, Any]:
        """Return `summary` as plain data, as in ``result.json``; accuracies are fractions.

        Raises:
            FedbenchError: before the first round.
        """
        return self.summary().to_dict()
