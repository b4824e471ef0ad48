"""Runs read from their directories and grouped by what can be compared.

Two runs share a **setting** when data, partition, client sampling, model, rounds, metrics, accuracy
rule and card version are the same; what else differs (method, ablations, options) is the
**variant**. Only runs of one setting are ever averaged or compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.changes import describe_changes, joined, parts
from ..config.construct import build
from ..config.model import RunConfig
from ..config.resolve import load_config
from ..config.yamlfile import inline
from ..engine.evaluation import reached, reported, views
from ..engine.totals import metrics_sha256
from ..errors import MissingClassError
from ..plugins.facts import PluginFacts, facts
from ..plugins.registry import Entry, Registry
from ..store.contents import Environment, Partition, Result
from ..store.directory import RunDirectory
from ..types import RoundResult

SETTING_HOOKS = ("prepare_data", "partition", "client_data", "select_clients", "duration")
"""Plugins that implement one of these belong to the setting, not to the method.

So do those whose class states ``setting = True``. One that only wraps a hook, as to give the
examples of all clients to one, belongs to the method.
"""

PLUGINS = "plugins."
"""What dotted keys of plugins' options begin with."""

SETTING_KEYS = (
    "data",
    "model",
    "rounds",
    "clients",
    "evaluate_every",
    "accuracy",
    "stop_at",
    "stop_time",
    "metrics",
)


@dataclass(frozen=True, eq=False)
class Record:
    """One run, as its directory describes it.

    Args:
        path: the run directory.
        config: the resolved config.
        setting: everything that it shares with comparable runs, as JSON-like data.
        variant: the method and its changes, such as ``fedhpro`` or ``fedhpro:-hpal``.
        rounds: its finished rounds.
        result: ``None`` when the run is not finished.
        error: why it failed or what interrupted it; ``None`` when nothing did.
        interrupted: whether the machine ended it, so that it can be resumed.
        environment: the versions and the machine.
        partition: ``None`` for a run without one.
    """

    path: Path
    config: RunConfig
    setting: Mapping[str, Any]
    variant: str
    rounds: Sequence[RoundResult]
    result: Result | None
    error: str | None
    interrupted: bool
    environment: Environment
    partition: Partition | None

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    @property
    def status(self) -> str:
        """``finished``, ``failed``, ``interrupted`` by the machine, or ``unfinished``."""
        if self.result is not None:
            return "finished"
        if self.error is None:
            return "unfinished"
        return "interrupted" if self.interrupted else "failed"

    @property
    def setting_key(self) -> str:
        """A text that is the same for all comparable runs."""
        return json.dumps(self.setting, sort_keys=True)


def setting_plugins(registry: Registry, plugins: Iterable[str]) -> list[str]:
    """Return those of ``plugins`` that belong to the setting."""

    def belongs(entry: Entry) -> bool:
        return (
            bool({*SETTING_HOOKS} & {*entry.own_hooks}) or facts(PluginFacts, entry.value).setting
        )

    entries = registry.entries
    return [name for name in plugins if any(map(belongs, entries.get(("plugin", name), [])))]


def setting_of(registry: Registry, config: RunConfig) -> dict[str, Any]:
    """Return everything that a run shares with comparable runs."""
    data = config.to_dict()
    shared = setting_plugins(registry, config.plugins)
    return {
        **{key: data[key] for key in SETTING_KEYS},
        "plugins": {name: data["plugins"][name] for name in shared},
        "card": {k: v for k, v in config.origin.items() if k.startswith("card")},
    }


def variant_of(registry: Registry, config: RunConfig) -> str:
    """Return the method and its changes, except for those that belong to the setting."""
    return joined(config.method, changes_of(registry, config))


def changes_of(registry: Registry, config: RunConfig) -> list[str]:
    """Return the method's changes, except for those that belong to the setting."""
    setting = (*setting_plugins(registry, registry.names("plugin")), *SETTING_KEYS)
    return describe_changes(registry, config, setting)


def read(registry: Registry, path: Path) -> Record:
    """Read the run directory at ``path``.

    Raises:
        ConfigError: when it holds no run, or a file of it is damaged.
    """
    directory = RunDirectory.open(path)
    config = load_config(registry, directory.config_file)
    rounds, result = directory.read_progress()
    error, interrupted = directory.read_error(), directory.read_interrupted()
    return Record(
        path=path,
        config=config,
        setting=setting_of(registry, config),
        variant=variant_of(registry, config),
        rounds=rounds,
        result=result,
        error=str(interrupted) if interrupted and error is None else error,
        interrupted=error is None and interrupted is not None,
        environment=directory.read_environment(),
        partition=directory.read_partition(),
    )


def fitting(
    registry: Registry, paths: Iterable[Path], left_out: Callable[[str], object]
) -> list[Record]:
    """Read run directories, without those that cannot be compared.

    These are runs whose files contradict each other, and runs with a class in memory that
    ``registry`` does not have.

    Args:
        registry: what is installed.
        paths: the run directories.
        left_out: called with one line per omitted run.

    Raises:
        ConfigError: when one holds no run, or a file of it is damaged.
    """
    found = []
    for path in paths:
        try:
            record = read(registry, path)
        except MissingClassError as error:
            left_out(f"{path} is left out: {error}")
            continue
        if why := contradiction(registry, record):
            left_out(f"{path} is left out: {why}")
        else:
            found.append(record)
    return found


def contradiction(registry: Registry, record: Record) -> str | None:
    """Return how the files of a finished run contradict each other; ``None`` if they do not."""
    result, config = record.result, record.config
    if result is None:
        return None
    if result.config_hash is not None and result.config_hash != config.hash:
        return "its config is not the one that produced its result"
    if result.seed != config.seed:
        return f"its result has seed {result.seed}, its config {config.seed}"
    if not all(map(math.isfinite, (result.accuracy.mean, *result.accuracy.domains.values()))):
        return "its accuracy is not a finite number"
    if result.metrics_sha256 != metrics_sha256(record.rounds):
        return "its rounds are not those that its result was computed from"
    rule = config.accuracy
    metric = build(registry, "metric", {"name": rule.metric, **config.metrics[rule.metric]})
    again = reported(rule, views(record.rounds, rule), metric.higher_is_better)
    if (result.accuracy.mean, dict(result.accuracy.domains)) != (again.mean, dict(again.domains)):
        return f"its result has accuracy {result.accuracy.mean}, its rounds yield {again.mean}"
    at_target = reached(config, record.rounds, metric.higher_is_better)
    if result.stop_at is not None and result.stop_at.reached != at_target:
        return "its result and its rounds disagree on whether it reached stop_at"
    return None


def aligned(found: Sequence[Record]) -> list[Record]:
    """Return the records with one name for a method in all settings.

    A run's name states what was changed from its recipe on its card, so that with ``sgd.lr=0.1``
    a method has another name under a card whose default that is. Where it leaves a recipe with
    fewer names, each is completed by the changes that another run's name states and that hold in
    the run as well.
    """
    renamed: dict[tuple[str, str], str] = {}
    for recipe in dict.fromkeys(parts(record.variant)[0] for record in found):
        mine = [record for record in found if parts(record.variant)[0] == recipe]
        stated = dict.fromkeys(change for r in mine for change in parts(r.variant)[1:])
        complete: dict[tuple[str, str], str] = {}
        for record in mine:
            place = record.setting_key, record.variant
            if place not in complete:
                holds = {*parts(record.variant)[1:], *_options(record.config)}
                complete[place] = joined(recipe, (change for change in stated if change in holds))
        if len({*complete.values()}) < len({record.variant for record in mine}):
            renamed |= complete
    return [
        replace(record, variant=renamed.get((record.setting_key, record.variant), record.variant))
        for record in found
    ]


def _options(config: RunConfig) -> Iterator[str]:
    """Yield every option of a run's plugins as a change states it."""
    for plugin, given in config.plugins.items():
        for key, value in given.items():
            yield f"{plugin}.{key}={inline(value)}"


def without_shared(variants: Iterable[str]) -> dict[str, str]:
    """Return shorter names, by name: without the changes that all variants have in common.

    ``fedavg:sgd.lr=1, fedhpro:sgd.lr=1`` become ``fedavg, fedhpro``. A single name stays as it is.
    """
    names = list(dict.fromkeys(variants))
    split = [parts(name) for name in names]
    shared = set(split[0][1:]).intersection(*(p[1:] for p in split)) if len(split) > 1 else set()
    return {
        name: joined(p[0], (change for change in p[1:] if change not in shared))
        for name, p in zip(names, split, strict=True)
    }


def by_setting(records: Iterable[Record]) -> list[list[Record]]:
    """Return groups of comparable records, in order of appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.setting_key, []).append(record)
    return list(groups.values())


def setting_labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a label per setting: its data set, and what else tells it from the others.

    If settings with the same data set follow several cards, the card is said. Whatever differs
    between settings with the same data set and card is said besides. Of a plugin that only some of
    these have, the options that differ between those are said, or its name if none does.
    """
    flat = [_flatten(setting) for setting in settings]
    sources = [(str(one["data.name"]), one.get("card.card")) for one in flat]
    labels = [""] * len(settings)
    for source in dict.fromkeys(sources):
        data, card = source
        places = [place for place, other in enumerate(sources) if other == source]
        several = len({other for other in sources if other[0] == data}) > 1
        head = [data, f"card {card}" if card else "no card"] if several else [data]
        parts = _distinctions([settings[p] for p in places], [flat[p] for p in places])
        for place, said in zip(places, parts, strict=True):
            labels[place] = ", ".join((*head, *said))
    return labels


def _distinctions(
    settings: Sequence[Mapping[str, Any]], flat: Sequence[Mapping[str, Any]]
) -> Iterator[list[str]]:
    """Yield for each setting what tells it from the others; see `setting_labels`."""
    everywhere = set.intersection(*({*one["plugins"]} for one in settings))
    keys = list(dict.fromkeys(key for one in flat for key in one))

    def differs(key: str) -> bool:
        plugin = key.removeprefix(PLUGINS).split(".")[0]
        sometimes = key.startswith(PLUGINS) and plugin not in everywhere
        values = {json.dumps(one.get(key)) for one in flat if key in one or not sometimes}
        return len(values) > 1

    differing = [key for key in keys if differs(key)]
    for setting, one in zip(settings, flat, strict=True):
        said = [key.removeprefix(PLUGINS) for key in differing if key in one]
        bare = (name for name in setting["plugins"] if name not in everywhere)
        parts = [name for name in bare if not any(k.startswith(f"{name}.") for k in said)]
        parts += [f"{key.removeprefix(PLUGINS)}={one[key]}" for key in differing if key in one]
        yield parts


def _flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
