"""The registered thing to check, and its runs; all rules share one run per setting."""

from __future__ import annotations

import gc
import json
import tempfile
import unittest
from collections.abc import Mapping
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from .. import options as option_checks
from ..config.model import RunConfig
from ..config.resolve import resolve
from ..config.yamlfile import Document
from ..engine.run import Run
from ..errors import ConfigError, FedbenchError
from ..plugins.registry import Entry, Registry
from ..watching import UNWATCHED, Watch
from .breach import Breach
from .outcome import PLAIN, Outcome, Setting, failed, in_a_fork, shuffled
from .tiny import PIECES, register
from .watch import Failing, Probe, Rough, Trace, fingerprint, watching

RUN = ("method", "plugin", "partition")
"""Kinds whose rules are checked on real rounds."""

KINDS = (*RUN, "dataset", "model", "metric", "executor")
"""Everything that the kit can check."""

KEPT = frozenset({"round_end", "run_end"})
"""Hooks whose plugins may need a run directory: the kit's runs have one only then."""

NEEDS = "pip install"
"""An error with these words is about a missing optional package."""


_DONE: dict[Any, Outcome] = {}
"""Finished runs, by everything that they depend on: the plugins of one method share them."""


class Subject:
    """A registered thing, and its runs on tiny data.

    Args:
        registry: what is installed.
        kind: its kind, one of `KINDS`.
        name: its name.
        options: its options, at least those without a default.
        model: options of the kit's model.

    Raises:
        ConfigError: when nothing of that kind and name is registered.
    """

    def __init__(
        self,
        registry: Registry,
        kind: str,
        name: str,
        options: Mapping[str, Any],
        model: Mapping[str, Any],
    ) -> None:
        self.registry, self.kind, self.name = registry, kind, name
        self._model = dict(model)
        self.options: dict[str, Any] = dict(options)
        self._outcomes: dict[Setting, Outcome] = {}
        table = {"method": "recipe", "partition": "plugin"}
        self.entry: Entry = registry.get(table.get(kind, kind), name)
        if kind == "partition" and not self.gives("partition"):
            raise ConfigError(f"plugin {name!r} does not implement the hook 'partition'")

    @property
    def label(self) -> str:
        """Kind and name: ``plugin 'fedprox'``."""
        return f"{self.kind} {self.name!r}"

    @property
    def cls(self) -> type:
        """The registered class; methods have none."""
        found: type = self.entry.value
        return found

    def gives(self, hook: str) -> bool:
        """Return whether it is a run plugin with a base implementation of ``hook``."""
        return self.entry.kind == "plugin" and _base(self.cls, hook)

    def uses(self, hook: str) -> bool:
        """Return whether a plugin of its runs implements ``hook`` or wraps it; not the kit's."""
        known = [name for name in self.plugins if ("plugin", name) in self.registry.entries]
        return any(hook in self.registry.get("plugin", name).hooks for name in known)

    @cached_property
    def plugins(self) -> dict[str, dict[str, Any]]:
        """The plugins of its runs: name -> options, in order.

        Those of the method itself; for a plugin, those of the smallest method that names it, or
        else those that it requires. Whatever a run still needs comes from the kit.
        """
        plugins: dict[str, dict[str, Any]] = {}
        if self.kind in RUN:
            home = self.home
            if home is not None:
                plugins = {name: dict(given) for name, given in home.value.plugins.items()}
            if self.kind != "method":
                plugins[self.name] = {**plugins.get(self.name, {}), **self.options}
        return self._completed(self._required(plugins))

    @property
    def home(self) -> Entry | None:
        """The method that it is, or in which it runs."""
        if self.kind == "method":
            return self.entry
        homes = [r for r in self.registry.all("recipe") if self.name in r.value.plugins]
        return min(homes, key=lambda r: (len(r.value.plugins), r.name), default=None)

    def _required(self, plugins: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}

        def add(name: str, given: dict[str, Any]) -> None:
            if name in found:
                return
            if ("plugin", name) in self.registry.entries:
                cls = self.registry.get("plugin", name).value
                for needed in getattr(cls, "requires", ()):
                    add(needed, plugins.get(needed, {}))
            found[name] = given

        for name, given in plugins.items():
            add(name, given)
        return found

    def _completed(self, plugins: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        known = [n for n in plugins if ("plugin", n) in self.registry.entries]
        classes = [self.registry.get("plugin", name).value for name in known]

        def lacks(hook: str) -> bool:
            return not any(_base(cls, hook) for cls in classes)

        missing = {
            "kit_partition": lacks("partition"),
            "kit_selection": lacks("select_clients"),
            "kit_clock": lacks("duration") and not lacks("schedule"),
            "kit_training": lacks("train"),
            "kit_mean": lacks("aggregate"),
            # A term that no method names may be an addition to another one, or absent at times.
            "kit_loss": lacks("local_loss") or (self.kind in RUN and self.home is None),
            # For an aggregation rule alone: no plugin sends weights.
            "kit_weights": lacks("broadcast")
            and not any(_has(cls, "personalize") and _base(cls, "aggregate") for cls in classes),
        }
        return {**{name: {} for name in PIECES if missing[name]}, **plugins}

    def config(self, registry: Registry, setting: Setting) -> RunConfig:
        """Return the resolved config of a run in that setting."""
        plugins = {name: dict(given) for name, given in self.plugins.items()}
        if "kit_partition" in plugins:
            plugins["kit_partition"] = {"form": setting.partition}
        if "kit_selection" in plugins:
            plugins["kit_selection"] = {"one": setting.one}
        if setting.partition == "odd":
            for name, given in plugins.items():
                cls = registry.get("plugin", name).value
                if _base(cls, "train") and "batch_size" in cls.__dataclass_fields__:
                    given.setdefault("batch_size", 8)
        if setting.second:
            plugins["kit_second"] = {}
        # A partition's defaults make more clients than the kit's partition.
        many = self.gives("partition")
        if many and "kit_training" in plugins:
            plugins["kit_training"] = {"batch_size": 64}
        examples = 300 if many else 24
        data = {"name": "kit_data", "examples": examples, **dict(setting.data)}
        executor: dict[str, Any] = {"name": setting.executor}
        if setting.workers:
            executor["workers"] = setting.workers
        tree = {
            "method": self.name,
            "data": data,
            "model": {"name": "kit_model", **self._model},
            "rounds": setting.rounds,
            "evaluate_every": setting.every,
            "executor": executor,
            "failures": {"policy": setting.policy},
            "plugins": plugins,
        }
        for key, value in self.choice.items():
            tree[key] = value
        return resolve(registry, file=Document(tree, "the kit's run"))

    @cached_property
    def choice(self) -> dict[str, Any]:
        """Config keys that choose a data set, model or metric; empty for other kinds."""
        if self.kind not in ("dataset", "model", "metric"):
            return {}
        named = {"name": self.name, **self.options}
        if self.kind == "metric":
            return {"metrics": {"accuracy": {}, self.name: self.options}}
        return {"data" if self.kind == "dataset" else "model": named}

    def run(self, setting: Setting = PLAIN) -> Outcome:
        """Run it in that setting, or return the outcome of an earlier run in that setting.

        Raises:
            unittest.SkipTest: when it needs an optional package that is not installed.
        """
        if setting in self._outcomes:
            return self._outcomes[setting]
        trace = Trace()
        executors = {"kit_watch": watching(trace), "kit_rough": Rough}
        more = {name: ("executor", cls) for name, cls in executors.items()}
        registry = register(self.registry, **more)
        try:
            config = self.config(registry, setting)
        except FedbenchError as error:
            if NEEDS in str(error):
                raise unittest.SkipTest(str(error)) from error
            self._outcomes[setting] = Outcome(error=error)
            return self._outcomes[setting]
        named = [("plugin", name) for name in config.plugins]
        named += [("metric", name) for name in config.metrics]
        named += [("dataset", config.data["name"]), ("model", config.model["name"])]
        classes = tuple(registry.get(*one).value for one in named)
        key = (config.hash, json.dumps(config.executor), setting, classes)
        if key not in _DONE:
            _DONE[key] = self._made(registry, config, setting, trace)
        self._outcomes[setting] = _DONE[key]
        return _DONE[key]

    def _made(
        self, registry: Registry, config: RunConfig, setting: Setting, trace: Trace
    ) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="fedbench-kit-") as folder, shuffled(len(_DONE)):
            path = Path(folder) / "run"
            keeps = any(KEPT & {*registry.get("plugin", n).hooks} for n in config.plugins)
            watch = _watch(setting, trace)
            where = path if keeps or setting.stop else None
            begin = partial(Run, config, registry=registry, watch=watch)
            outcome = Outcome(trace=trace)
            run = None if setting.stop == "interrupted" else begin(where)
            try:
                if run is None:
                    # In another process, as when a run is killed: what a plugin has kept in memory
                    # is lost. An error there is met again here.
                    if not in_a_fork(lambda: _first_round(begin(path))):
                        path = Path(folder) / "again"
                        _first_round(begin(path))
                    run = Run.resume(path, registry=registry, watch=watch)
                elif setting.stop == "failed":
                    outcome.failure = _failure(run)
                    run = Run.resume(path, registry=registry, watch=watch)
                run.run()
            except Exception as error:  # of any kind: a rule reports it
                outcome.error = error
            outcome.rounds = list(run.history) if run else []
            if run and run.state is not None:
                outcome.weights = fingerprint(run.state.weights)
                outcome.entries = fingerprint(run.state.entries)
        if outcome.error is None:
            del run
            if trace.alive():
                gc.collect()
            trace.references = [one for one in trace.references if one[0]() is not None]
        return outcome

    def must(self, setting: Setting = PLAIN, why: str = "") -> Outcome:
        """Return the outcome of `run`, which must succeed.

        Raises:
            Breach: when the run ended with an error.
        """
        if setting == PLAIN and not why:
            why = " on tiny data"
        outcome = self.run(setting)
        if outcome.error is not None:
            raise failed(outcome.error, why) from outcome.error
        return outcome

    def plain(self) -> Outcome:
        """Return the plain run, with which others are compared.

        Raises:
            Breach: when it ended with an error, about which the rule ``smoke-round`` says more.
        """
        try:
            return self.must()
        except Breach as found:
            found.mend = found.mend or "first mend what the rule 'smoke-round' finds"
            raise


def _watch(setting: Setting, trace: Trace) -> Watch:
    if setting.fails:
        return Failing(setting.fails)
    return Probe(trace) if setting.executor == "kit_watch" else UNWATCHED


def _first_round(run: Run) -> None:
    """Play a round, and leave what resuming needs."""
    with closing(run.rounds()) as rounds:
        next(rounds)


def _failure(run: Run) -> BaseException:
    """Run until a client fails and return the error."""
    try:
        run.run()
    except Exception as error:  # a plugin may have replaced the kit's error
        return error
    raise Breach(
        "a client's turn raised an error, and the run continued as if it had not",
        "hook 'client_update'",
        "don't catch what a wrapped client_update raises",
    )


def _has(cls: type, hook: str) -> bool:
    return hasattr(getattr(cls, hook, None), "fedbench_impl")


def _base(cls: type, hook: str) -> bool:
    """Return whether ``cls`` implements ``hook``, other than as a wrapper."""
    return _has(cls, hook) and not getattr(cls, hook).fedbench_impl.get("wrapper")


def build(cls: type, options: Mapping[str, Any]) -> Any:
    """Create an instance from options, as a run does.

    Raises:
        ConfigError: for an option that can't be used.
        unittest.SkipTest: when an optional package is missing.
    """
    try:
        return option_checks.build(cls, options, lambda path: ".".join(path) or cls.__name__)
    except ConfigError as error:
        if NEEDS in str(error):
            raise unittest.SkipTest(str(error)) from error
        raise
