"""Repeat a kept run and say whether the bits agree, and if not, what differs first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ..config import yamlfile
from ..config.kept import resolve_kept
from ..errors import ConfigError
from ..plugins.registry import Registry
from ..store import checkpoint, digests, fingerprint
from ..store.directory import RunDirectory
from ..store.environment import environment
from ..types import RoundResult, ServerState, sha256
from .round import Progress
from .run import Run
from .totals import canonical_round

REPEATED = (
    *("rounds", "accuracy", "bytes", "failures", "metrics_sha256", "weights_sha256"),
    *("stop_at", "virtual_time", "method", "data", "model", "seed", "config_hash"),
)
"""Keys of ``result.json`` that a second run must repeat; older versions lack some of them."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a verification.

    Args:
        rounds: the last round that was repeated, 0 for none.
        difference: the first difference, as one line; ``None`` when the bits agree.
        notes: what limits the verdict.
        start: the round of the kept checkpoint that the second run started from, 0 for none.
    """

    rounds: int
    difference: str | None
    notes: tuple[str, ...] = ()
    start: int = 0


class Kept:
    """A kept run to verify, finished or not.

    Args:
        registry: what is installed.
        path: its directory.
        executor: the executor to use instead of the run's own: its name and options.

    Raises:
        ConfigError: when the directory holds no run or no finished round, or a file is damaged.
    """

    def __init__(
        self,
        registry: Registry,
        path: Path,
        executor: Mapping[str, Any] | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        self.directory, self._registry = RunDirectory.open(path), registry
        self.path = path
        document = yamlfile.read(self.directory.config_file)
        self.config = resolve_kept(registry, document, executor=executor, sets=sets, observed=False)
        self.rounds, self.result = self.directory.read_progress()
        self._digests = digests.read(path)
        if not self.rounds:
            raise ConfigError(f"{path} holds no finished round to verify")

    def changed_environment(self) -> list[str]:
        """Return how this machine differs from the run's, one line per difference."""
        made, here = self.directory.read_environment(), environment(self.config.device)
        then: dict[str, str] = dict(fingerprint.kept(made))
        now: dict[str, str] = dict(fingerprint.of_run(self._registry, self.config))
        for name in ("platform", "processor"):
            then[name], now[name] = str(getattr(made, name)), str(getattr(here, name))
        return fingerprint.changes(then, now)

    def verify(
        self,
        first: int = 1,
        last: int | None = None,
        *,
        data_root: Path | None = None,
        progress: Progress | None = None,
        after_round: Callable[[RoundResult], None] = lambda _: None,
    ) -> Verdict:
        """Repeat the run up to round ``last`` and compare its rounds from ``first`` on.

        A round depends on all rounds before it. The second run therefore starts from the newest
        kept checkpoint before ``first``, or from round 1 if there is none.

        Raises:
            ConfigError: for rounds that the run does not have, or a damaged checkpoint.
            Exception: any error of the second run.
        """
        last = len(self.rounds) if last is None else last
        if not 1 <= first <= last <= len(self.rounds):
            raise ConfigError(f"{self.path} has rounds 1 to {len(self.rounds)}, not {first}-{last}")
        if damaged := self._contradiction():
            return Verdict(0, damaged)
        job = Run(
            self.config,
            registry=self._registry,
            data_root=data_root,
            progress=progress,
            observed=False,
        )
        start = max((n for n in checkpoint.kept(self.path) if n < first), default=0)
        if start:
            found = checkpoint.read_kept(checkpoint.kept(self.path)[start], start, self.config)
            if text := self._misfit(found.state):
                return Verdict(0, f"the checkpoint of round {start}: {text}", start=start)
            job.start_from(found, self.rounds[:start])
        unknown = [n for n in range(first, last + 1) if n not in self._digests]
        notes = [f"no digests are kept for {len(unknown)} rounds"] if unknown else []
        with closing(job.rounds()) as rounds:
            for result in rounds:
                after_round(result)
                if result.round >= first:
                    text = next(self._changed_data(job), None)
                    text = text or next(self._differences(result, job.digests), None)
                    if text:
                        text = f"round {result.round}: {text}"
                        return Verdict(result.round, text, tuple(notes), start)
                if result.round == last:
                    break
        text = self._changed_result(job) if last == len(self.rounds) else None
        return Verdict(last, text, tuple(notes), start)

    def _changed_result(self, job: Run) -> str | None:
        """Return how the kept ``result.json`` differs from the second run's result."""
        if not self.result:
            return None
        then, now = self.result.to_dict(), job.result()
        for key in REPEATED:
            if then[key] is not None and then[key] != now[key]:
                where = f"{self.directory.result_file.name}, {key}"
                return f"{where}: {_show(then[key], now[key])}"
        return None

    def _changed_data(self, job: Run) -> Iterator[str]:
        """Yield changes of data and partition, which explain any later difference."""
        yield from fingerprint.changes(
            self.directory.read_environment().depends, job.runtime.depends
        )

    def _misfit(self, state: ServerState) -> str | None:
        """Return how a kept checkpoint contradicts the digests of its round."""
        if state.round not in self._digests:
            return None
        line = self._digests[state.round]
        return next(_tensors("server", line["server"], digests.of_state(state)), None)

    def _contradiction(self) -> str | None:
        """Return how the kept files contradict each other, without a second run."""
        if not self.result:
            return None
        files = self.directory
        config, model, result = (
            file.name for file in (files.config_file, files.model_file, files.result_file)
        )
        if self.result.config_hash not in (None, self.config.hash):
            return f"{config} is not the config that produced {result}"
        try:
            held = sha256(load_file(files.model_file))
        except (OSError, SafetensorError) as error:
            return f"{model} cannot be read: {error}"
        named = self.result.weights_sha256
        if held != named:
            return f"{model} holds weights {held}, {result} names {named}"
        return None

    def _differences(self, now: RoundResult, line: Mapping[str, Any]) -> Iterator[str]:
        """Yield what differs in a round, in the order in which a round computes it."""
        then = self.rounds[now.round - 1]
        if list(then.clients) != list(now.clients):
            yield f"selected clients: {_show(list(then.clients), list(now.clients))}"
        if now.round in self._digests:
            kept = self._digests[now.round]
            before, after = digests.clients_of(kept), digests.clients_of(line)
            for client in sorted({*before, *after}):
                if client not in before or client not in after:
                    yield f"client {client}: " + _show(
                        "failed" if client not in before else "answered",
                        "failed" if client not in after else "answered",
                    )
                yield from _tensors(
                    f"client {client}, upload", before.get(client, {}), after.get(client, {})
                )
            yield from _tensors("server", kept["server"], line["server"])
        if canonical_round(then) != canonical_round(now):
            old, new = (_flat(json.loads(canonical_round(r))) for r in (then, now))
            keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
            yield from (f"{key}: {_show(old.get(key), new.get(key))}" for key in keys[:1])
            if not keys:  # 1 and 1.0
                yield f"round {now.round}: the same numbers, written in another way"


def _tensors(where: str, then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            yield f"{where} {name}: {_show(then.get(name), now.get(name))}"


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _show(then: object, now: object) -> str:
    def text(value: object) -> str:
        return "missing" if value is None else str(value)

    return f"{text(then)} then, {text(now)} now"
