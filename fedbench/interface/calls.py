"""`fedbench.run`, `resume`, `load`, `compare`, `tune` and `load_comparison`: commands as functions.

Each parameter is a flag of the command of that name, with the same default; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..config import yamlfile
from ..config.model import RunConfig
from ..config.target import resolve_target
from ..errors import ConfigError
from ..options import dump
from ..plugins.discovery import discover
from ..plugins.memory import with_classes
from ..store.directory import RunDirectory, find
from ..study import records
from ..study.analysis import analyse
from ..study.comparison import How
from ..study.grid import make_grid
from ..study.reproductions import chosen, with_methods
from ..study.reproductions import load as load_reproduction
from ..text import echo
from .comparisons import Comparison, carry_out_grid, written
from .reproductions import Reproduced, carry_out, cost, with_seeds
from .results import RunResult
from .runs import resume_run, run_config
from .tunings import TuningResult, tuned

PathLike: TypeAlias = str | Path
Names: TypeAlias = str | Sequence[str]
"""One name or several."""

Classes: TypeAlias = Mapping[str, type]
"""Name -> class of a plugin."""


def run(
    method: PathLike | RunConfig, *,
    data: str | None = None, card: str | None = None, model: str | None = None,
    rounds: int | None = None, stop_at: float | str | None = None, seed: int | None = None,
    device: str | None = None, precision: str | None = None, executor: str | None = None,
    workers: int | None = None,
    set: Mapping[str, Any] | None = None, without: Names = (), with_: Names = (),
    config: PathLike | None = None, plugins: Mapping[str, Any] | None = None,
    checkpoint_rounds: int | None = None, checkpoint_minutes: float = 1.0,
    keep_checkpoints: bool = False, keep_personal: bool = False, until: int | None = None,
    out: PathLike | None = None, data_root: PathLike | None = None, quiet: bool = False,
) -> RunResult:  # fmt: skip
    """Run a method and keep the run in a directory, like ``fedbench run``.

    Args:
        method: a method's name, the path of a YAML file, or the config of another run. What follows
            overrides it, up to ``config``, a YAML file that may be partial.
        stop_at: end after the first scored round that reaches this value, such as 0.9.
        set: option -> value, such as ``{"sgd.lr": 0.05}``.
        without: plugins to remove.
        with_: plugins to add.
        plugins: classes to add as plugins without a package: name -> class, or an instance, whose
            options count. The run is marked: its config alone cannot repeat it.
        checkpoint_minutes: write a checkpoint at the end of a round when the last one is this old;
            with ``checkpoint_rounds``, also after so many rounds.
        until: pause after this round; `resume` continues.
        out: the run directory; an unfinished run of the same config in it resumes. Default
            ``runs/METHOD-DATA-sSEED``, numbered if it exists.
        quiet: show no progress.

    Raises:
        FedbenchError: for what a user can fix, naming the nearest valid name.
    """
    given = plugins or {}
    registry = with_classes(discover(), {name: _class(one) for name, one in given.items()})
    sets = [*_options(given), *_sets(set)]
    flags: Any = {"data": data, "model": model, "rounds": rounds, "stop_at": stop_at}
    flags |= {"seed": seed, "device": device, "precision": precision}
    resolved = resolve_target(
        registry, str(method) if isinstance(method, Path) else method, file=_path(config),
        card=card, executor=executor, workers=workers, sets=sets, without=_names(without),
        plus=[*given, *_names(with_)], **flags,
    )  # fmt: skip
    found = run_config(
        registry, resolved, _path(out), quiet=quiet, until=until, data_root=_path(data_root),
        checkpoint_rounds=checkpoint_rounds, checkpoint_minutes=checkpoint_minutes,
        keep_checkpoints=keep_checkpoints, keep_personal=keep_personal,
    )  # fmt: skip
    return RunResult(registry, found)


def resume(
    directory: PathLike, *,
    executor: str | None = None, workers: int | None = None, set: Mapping[str, Any] | None = None,
    plugins: Classes | None = None, checkpoint_rounds: int | None = None,
    checkpoint_minutes: float = 1.0, keep_checkpoints: bool = False, keep_personal: bool = False,
    data_root: PathLike | None = None, quiet: bool = False,
) -> RunResult:  # fmt: skip
    """Continue the unfinished run in a directory, like ``fedbench resume``.

    Args:
        directory: the run directory.
        plugins: the classes that the run was given, see `run`; their options are in its config.
        checkpoint_minutes: as for `run`, like what else is not described here.

    Raises:
        FedbenchError: for what a user can fix.
    """
    registry = with_classes(discover(), plugins or {})
    found = resume_run(
        registry, Path(directory).expanduser(), executor, workers, _sets(set), quiet=quiet,
        data_root=_path(data_root), checkpoint_rounds=checkpoint_rounds,
        checkpoint_minutes=checkpoint_minutes, keep_checkpoints=keep_checkpoints,
        keep_personal=keep_personal,
    )  # fmt: skip
    return RunResult(registry, found)


def load(directory: PathLike, *, plugins: Classes | None = None) -> RunResult:
    """Return the run in a directory, finished or not.

    Args:
        directory: the run directory.
        plugins: the classes that the run was given, see `run`.

    Raises:
        ConfigError: when there is no run, or a file of it is damaged.
    """
    registry = with_classes(discover(), plugins or {})
    path = Path(directory).expanduser()
    if not RunDirectory(path).exists and (below := len(find([path]))):
        raise ConfigError(
            f"{path} holds no run itself, but {below} below it; "
            f"fedbench.load_comparison({str(path)!r}) reads them"
        )
    return RunResult(registry, path, records.read(registry, path))


def compare(
    methods: Names = (), *,
    data: Names = (), card: Names = (), setting: Names = (),
    seeds: int | Sequence[int] | None = None, rounds: int | None = None,
    stop_at: float | str | None = None, device: str | None = None,
    set: Mapping[str, Any] | None = None, config: PathLike | None = None,
    plugins: Classes | None = None, reference: str | None = None,
    test: Literal["t", "wilcoxon"] | None = None, target: float | None = None,
    jobs: int | None = None,
    checkpoint_rounds: int | None = None, checkpoint_minutes: float = 1.0,
    keep_checkpoints: bool = False, retry: bool = False, trust_old: bool = False,
    out: PathLike = "comparison", data_root: PathLike | None = None, quiet: bool = False,
) -> Comparison:  # fmt: skip
    """Run methods over several seeds and test which one is better, like ``fedbench compare``.

    Args:
        methods: names or YAML files, perhaps with changes: ``fedhpro:-hpal``, ``fedavg:+mine``.
        data: data sets, like ``card`` and ``setting`` one or several.
        seeds: how many seeds from 0, or the seeds; default 3.
        set: option -> value, for every run.
        config: a YAML grid, which the other arguments override.
        plugins: classes that methods may name as plugins without a package. Runs with them are made
            in this process, are marked, and are not reused unless ``trust_old`` says so.
        reference: the method that the others are compared with; default the last.
        out: the folder of the runs and the report.
        quiet: show no progress.

    Raises:
        FedbenchError: for what a user can fix. A run that fails is in the tables with its reason.
    """
    registry = with_classes(discover(), plugins or {})
    wanted = {
        "methods": _names(methods), "data": _names(data), "cards": _names(card),
        "settings": _names(setting), "rounds": rounds, "device": device, "set": _sets(set),
        "seeds": _seeds(seeds), "reference": reference, "test": test, "target": target,
        "stop_at": stop_at,
    }  # fmt: skip
    grid = make_grid(_path(config), wanted, "fedbench.compare")
    how = How(
        jobs=jobs, retry=retry, trust_old=trust_old, data_root=_path(data_root),
        checkpoint_rounds=checkpoint_rounds, checkpoint_minutes=checkpoint_minutes,
        keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    folder = Path(out).expanduser()
    return written(registry, carry_out_grid(registry, grid, how, folder, quiet), folder)


def tune(
    methods: Names = (), *,
    data: str | None = None, card: str | None = None, trials: int | None = None,
    search_seeds: int | Sequence[int] | None = None, seeds: int | Sequence[int] | None = None,
    space: PathLike | None = None, set_space: Mapping[str, Any] | None = None, shared: Names = (),
    sampler: Literal["tpe", "random", "grid"] | None = None, sampler_seed: int | None = None,
    batch: int | None = None, prune: bool | None = None, rounds: int | None = None,
    device: str | None = None, set: Mapping[str, Any] | None = None,
    config: PathLike | None = None, plugins: Classes | None = None, reference: str | None = None,
    test: Literal["t", "wilcoxon"] | None = None, jobs: int | None = None,
    checkpoint_rounds: int | None = None, checkpoint_minutes: float = 1.0,
    keep_checkpoints: bool = False, retry: bool = False, trust_old: bool = False,
    out: PathLike = "tuning", data_root: PathLike | None = None, quiet: bool = False,
    dry_run: bool = False,
) -> TuningResult:  # fmt: skip
    """Search the options of methods, then compare the best of each, like ``fedbench tune``.

    Args:
        methods: as for `compare`, like what is not described here.
        trials: of each method, its default included; default 20.
        search_seeds: how many seeds every trial has, from 0, or the seeds; default 1.
        seeds: how many fresh seeds the comparison has, or the seeds; default 5.
        space: a YAML file of search spaces, in place of the declared ones.
        set_space: option -> space: ``"log:0.001:1"``, ``"int:1:10"``, ``"default"``, or choices as
            a list; ``"METHOD:KEY"`` is for one method.
        shared: options that are tuned once, on the first method.
        sampler: how trials are proposed; default tpe.
        batch: trials that are proposed at a time, whatever ``jobs`` is; default 4.
        prune: whether hopeless trials end early; the budget is then counted in rounds.
        config: a YAML file of methods, card, trials and so on; the other arguments override it.
        dry_run: run nothing; the result says what would be run.

    Raises:
        FedbenchError: for what a user can fix. A run that fails is a failed trial.
    """
    from ..study.tuning_plan import plan, wanted

    registry = with_classes(discover(), plugins or {})
    given = {
        "methods": _names(methods), "data": data, "card": card, "trials": trials,
        "search_seeds": _seeds(search_seeds), "seeds": _seeds(seeds), "shared": _names(shared),
        "set_space": _spaces(set_space), "sampler": sampler, "sampler_seed": sampler_seed,
        "batch": batch, "prune": prune, "rounds": rounds, "device": device, "set": _sets(set),
        "reference": reference, "test": test,
    }  # fmt: skip
    planned = plan(registry, wanted(given, "fedbench.tune", _path(config)), _path(space))
    folder = Path(out).expanduser()
    if dry_run:
        return TuningResult(registry, planned, folder)
    how = How(
        jobs=jobs, retry=retry, trust_old=trust_old, data_root=_path(data_root),
        checkpoint_rounds=checkpoint_rounds, checkpoint_minutes=checkpoint_minutes,
        keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    return tuned(registry, planned, how, folder, quiet)


def reproduce(
    name: str, *,
    cell: Names = (), method: Names = (), seeds: int | Sequence[int] | None = None,
    jobs: int | None = None, checkpoint_rounds: int | None = None, checkpoint_minutes: float = 1.0,
    keep_checkpoints: bool = False, retry: bool = False, trust_old: bool = False,
    out: PathLike = "reproduction", data_root: PathLike | None = None, quiet: bool = False,
    dry_run: bool = False,
) -> Reproduced:  # fmt: skip
    """Repeat published results and judge them by a fixed rule, like ``fedbench reproduce``.

    Args:
        name: a reproduction; `fedbench reproduce` lists them.
        cell: one of its cells or several; default all.
        method: one of its methods or several; default all.
        seeds: how many seeds from 0, or the seeds; default as in its file.
        out: the folder of the runs and the report.
        quiet: show no progress.
        dry_run: run nothing; the result has only the cost.

    Raises:
        FedbenchError: for what a user can fix.
    """
    registry = discover()
    found, parts = load_reproduction(registry, name)
    parts = with_seeds(with_methods(chosen(parts, _names(cell)), _names(method)), _seeds(seeds))
    folder = Path(out).expanduser()
    how = How(
        jobs=jobs, retry=retry, trust_old=trust_old, data_root=_path(data_root),
        checkpoint_rounds=checkpoint_rounds, checkpoint_minutes=checkpoint_minutes,
        keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    if dry_run:
        return Reproduced(found, cost(registry, found, parts, how, folder))
    done = carry_out(registry, found, parts, how, folder, quiet)
    done.write(folder)
    return done


def load_comparison(
    *directories: PathLike, reference: str | None = None, test: Literal["t", "wilcoxon"] = "t",
    target: float | None = None, plugins: Classes | None = None,
) -> Comparison:  # fmt: skip
    """Return the comparison of existing runs, like ``fedbench report``.

    Args:
        directories: every run at or below them is included.
        reference: the method that the others are compared with; default the last.
        test: the paired test.
        target: the value whose cost in rounds, bytes and time is compared; default the final value
            of the reference.
        plugins: the classes that the runs were given, see `compare`.

    Raises:
        ConfigError: when there is no run, or a file is damaged.
    """
    registry = with_classes(discover(), plugins or {})
    found = records.fitting(registry, find(map(Path, directories)), echo)
    analysis = analyse(registry, found, reference=reference, test=test, target=target)
    return Comparison(registry, analysis)


def _class(plugin: Any) -> type:
    return plugin if isinstance(plugin, type) else type(plugin)


def _options(plugins: Mapping[str, Any]) -> list[str]:
    """Return the options of those plugins that are instances, in the form of ``--set``."""
    return [
        one
        for name, plugin in plugins.items()
        if not isinstance(plugin, type)
        for one in _sets({f"{name}.{key}": value for key, value in dump(plugin).items()})
    ]


def _sets(options: Mapping[str, Any] | None) -> list[str]:
    """Return options in the form of ``--set``."""
    return [f"{key}={yamlfile.inline(value)}" for key, value in (options or {}).items()]


def _spaces(given: Mapping[str, Any] | None) -> list[str]:
    """Return search spaces in the form of ``--set-space``."""
    texts = {
        key: f"choice:{yamlfile.inline(list(space))[1:-1]}"
        if isinstance(space, list | tuple)
        else space
        for key, space in (given or {}).items()
    }
    return [f"{key}={text}" for key, text in texts.items()]


def _seeds(given: int | Sequence[int] | None) -> int | list[int] | None:
    return given if given is None or isinstance(given, int) else list(given)


def _names(given: Names) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _path(given: PathLike | None) -> Path | None:
    return Path(given).expanduser() if given is not None else None
