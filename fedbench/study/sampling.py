"""What Optuna does for a search: it proposes values, prunes, rates options and keeps the trials.

This is the only module that imports Optuna, an extra. Every function is pure: it builds a study in
memory from the trials so far and asks it with a sampler whose seed depends on the number of the
trial. A search therefore continues after an interruption as if there had been none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ..config.yamlfile import inline
from ..errors import ConfigError
from ..random import Streams
from .spaces import Space, Spaces, Values, grid, size
from .trials import Trial, key

try:
    with warnings.catch_warnings():  # in a notebook without ipywidgets, which nothing here needs
        warnings.filterwarnings("ignore", "IProgress not found")
        import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise ConfigError(
        "`fedbench tune` needs Optuna; install it: pip install 'fedbench-toolkit[tune]'"
    ) from error

Name = Literal["tpe", "random", "grid"]

REPEATS, ASKS = 50, 1000
"""After how many asks an untried point is drawn at random, and after how many none is sought."""

STARTUP = 5
"""Complete trials before any trial is pruned, Optuna's default."""

ENOUGH, TOP = 15, 5
"""Complete trials without which importances are noise, and how many trials count as the top."""


@dataclass(frozen=True)
class Sampler:
    """How points are proposed.

    Args:
        name: ``tpe`` (Bergstra et al., NeurIPS 2011, in Optuna's multivariate form), ``random`` or
            ``grid``.
        seed: of all proposals.
        points: the most points of a grid.
        higher_is_better: whether a higher score is better.
    """

    name: Name
    seed: int
    points: int
    higher_is_better: bool


def propose(
    how: Sampler, spaces: Spaces, trials: Sequence[Trial], asked: Sequence[Values], count: int
) -> list[dict[str, Any]]:
    """Return the next points to try, none of which has been tried.

    Args:
        how: the sampler.
        spaces: the values of each option.
        trials: all finished trials.
        asked: points that will be tried besides.
        count: how many points to return; fewer are returned when no more are left.
    """
    tried = {key(values) for values in (*(t.values for t in trials), *asked)}
    if how.name == "grid":
        points = grid(spaces, how.points, how.seed)
        return [point for point in points if key(point) not in tried][:count]
    inside = {key(t.values) for t in trials if _inside(spaces, t.values)}
    inside |= {key(values) for values in asked if _inside(spaces, values)}
    wanted = min(count, size(spaces) - len(inside))
    seed = Streams(how.seed).key("search", len(trials) + len(asked)) % 2**32
    found: list[dict[str, Any]] = []
    with _quiet():
        uniform = optuna.samplers.RandomSampler(seed)
        tpe = optuna.samplers.TPESampler(seed=seed) if how.name == "tpe" else uniform
        study = _study(spaces, trials, how.higher_is_better, tpe)
        for number in range(ASKS):
            if len(found) >= wanted:
                break
            if number == REPEATS:  # what is tried already is likely to be proposed once more
                study.sampler = uniform
            point = _values(spaces, study.ask(_distributions(spaces)).params)
            if key(point) not in tried:
                tried.add(key(point))
                found.append(point)
    return found


def prunes(spaces: Spaces, trials: Sequence[Trial], curve: Mapping[int, float], up: bool) -> bool:
    """Return whether a trial with this curve ends here, by the median rule.

    It does if its best score so far is below the median of the complete ``trials`` at its last
    round (Golovin et al., Google Vizier, KDD 2017, as in Optuna's `MedianPruner`). ``up`` is
    whether a higher score is better.
    """
    with _quiet():
        study = _study(spaces, trials, up, None)
        under_way = optuna.trial.create_trial(
            state=TrialState.RUNNING, intermediate_values=dict(curve)
        )
        return bool(optuna.pruners.MedianPruner(STARTUP).prune(study, under_way))


def importances(spaces: Spaces, trials: Sequence[Trial], up: bool) -> dict[str, float]:
    """Return the share of each option in what sets the best trials apart; empty if that is unclear.

    By PED-ANOVA (Watanabe et al., IJCAI 2023) for the best tenth of the complete trials, or the
    best `TOP` if these are more.
    """
    complete = [t for t in trials if t.score is not None and _inside(spaces, t.values)]
    if len(complete) < ENOUGH or len(spaces) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(
        target_quantile=max(0.1, TOP / len(complete))
    )
    with _quiet():
        study = _study(spaces, complete, up, None)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


class Storage:
    """Optuna's own file of the trials (SQLite), which its tools read; a context manager.

    It is a record. A search continues from its runs, which hold the scores.

    Args:
        file: the file, created when it is missing.
    """

    def __init__(self, file: Path) -> None:
        from sqlalchemy import URL

        url = URL.create("sqlite", database=str(file.absolute()))
        with _quiet():
            self._storage = optuna.storages.RDBStorage(url.render_as_string())

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    def keep(self, name: str, spaces: Spaces, trials: Sequence[Trial], up: bool) -> None:
        """Keep the trials as a study; one with other results, as of older code, is replaced."""
        new = [_frozen(spaces, trial, up) for trial in trials]
        with _quiet():
            study = self._open(name, up)
            kept = study.get_trials(deepcopy=False)
            if any(_said(one) != _said(other) for one, other in zip(kept, new, strict=False)):
                optuna.delete_study(study_name=name, storage=self._storage)
                study, kept = self._open(name, up), []
            study.add_trials(new[len(kept) :])

    def _open(self, name: str, up: bool) -> optuna.Study:
        return optuna.create_study(
            storage=self._storage, study_name=name, load_if_exists=True, direction=_direction(up)
        )


def _said(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.state, trial.values, trial.params, trial.user_attrs


def _direction(up: bool) -> str:
    return "maximize" if up else "minimize"


def _study(
    spaces: Spaces, trials: Sequence[Trial], up: bool, sampler: optuna.samplers.BaseSampler | None
) -> optuna.Study:
    """Return a study in memory of those trials that lie in the spaces."""
    study = optuna.create_study(direction=_direction(up), sampler=sampler)
    study.add_trials([_frozen(spaces, t, up) for t in trials if _inside(spaces, t.values)])
    return study


def _frozen(spaces: Spaces, trial: Trial, up: bool) -> FrozenTrial:
    """Return a trial as Optuna's; a failed one is complete and worse than any other."""
    inside = _inside(spaces, trial.values)
    state = TrialState.PRUNED if trial.status == "pruned" else TrialState.COMPLETE
    value = trial.score
    if trial.status == "failed":
        value = -math.inf if up else math.inf
    elif value is None:
        value = trial.curve[max(trial.curve)]
    texts = {name: inline(value) for name, value in trial.values.items()}
    return optuna.trial.create_trial(
        state=state,
        value=value,
        intermediate_values=dict(trial.curve),
        params=_params(spaces, trial.values) if inside else {},
        distributions=_distributions(spaces) if inside else {},
        user_attrs={"values": texts, "error": trial.error, "rounds": trial.rounds},
    )


def _inside(spaces: Spaces, values: Values) -> bool:
    """Return whether a point lies in the spaces; a method's default need not."""
    return all(name in values and values[name] in space for name, space in spaces.items())


def _distributions(spaces: Spaces) -> dict[str, BaseDistribution]:
    return {name: _distribution(space) for name, space in spaces.items()}


def _distribution(space: Space) -> BaseDistribution:
    if space.search.choices:
        return CategoricalDistribution([inline(choice) for choice in space.search.choices])
    (low, high), log = space.ends, space.search.scale == "log"
    if space.whole:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _params(spaces: Spaces, values: Values) -> dict[str, Any]:
    """Return values as Optuna has them: choices as text, since they may be lists."""
    return {
        name: inline(values[name]) if space.search.choices else values[name]
        for name, space in spaces.items()
    }


def _values(spaces: Spaces, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Optuna proposes as values: the inverse of `_params`, and numbers rounded."""
    found = {}
    for name, space in spaces.items():
        choices = {inline(choice): choice for choice in space.search.choices}
        found[name] = choices[params[name]] if choices else space.rounded(params[name])
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from printing what it does, within a block."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
