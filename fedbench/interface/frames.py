"""The numbers of runs as pandas data frames; pandas is an extra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..engine.evaluation import view
from ..errors import FedbenchError
from ..study.analysis import Analysis
from ..study.records import Record

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """Return rows as a data frame.

    Raises:
        FedbenchError: without pandas.
    """
    try:
        import pandas
    except ImportError as error:
        raise FedbenchError(
            "data frames need pandas: pip install 'fedbench-toolkit[pandas]'"
        ) from error
    return pandas.DataFrame(list(rows))


def rounds_of(record: Record) -> Iterator[dict[str, Any]]:
    """Yield a row for each scored round of a run.

    Its keys are ``round``; ``mean`` and ``worst`` of the reported metric, and ``domain.NAME``, all
    as fractions; the plugins' metrics by their names, such as ``loss.cross_entropy``; ``bytes_up``
    and ``bytes_down`` of all clients together; and ``seconds``.
    """
    for one in record.rounds:
        scores = view(one, record.config.accuracy)
        if scores is None:
            continue
        yield {
            "round": one.round,
            "mean": scores.mean,
            "worst": scores.worst,
            **{f"domain.{name}": value for name, value in scores.domains.items()},
            **one.metrics,
            "bytes_up": sum(one.bytes_up.values()),
            "bytes_down": sum(one.bytes_down.values()),
            "seconds": one.seconds,
        }


def rounds(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Yield the rows of all runs, each after its ``setting``, ``variant`` and ``seed``."""
    for group in analysis.groups:
        for record in group.records:
            head = {"setting": group.label, "variant": record.variant, "seed": record.seed}
            for row in rounds_of(record):
                yield {**head, **row}


def summary(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Yield a row for each setting, variant and column (the mean or a domain).

    ``seeds``, ``mean``, ``std`` and the 95 % interval ``low`` to ``high`` are over seeds; without a
    finished run there is no row. The others are of the paired difference to the reference:
    ``difference``, ``difference_low``, ``difference_high``, ``effect``, and ``p`` after Holm's
    correction.
    """
    for group in analysis.groups:
        for variant, cells in group.cells.items():
            for column, cell in cells.items():
                if cell.summary is None:
                    continue
                found, paired = cell.summary, cell.paired
                yield {
                    "setting": group.label,
                    "variant": variant,
                    "column": column,
                    "seeds": found.n,
                    "mean": found.mean,
                    "std": found.std,
                    "low": found.low,
                    "high": found.high,
                    "difference": paired.difference if paired else None,
                    "difference_low": paired.low if paired else None,
                    "difference_high": paired.high if paired else None,
                    "effect": paired.effect if paired else None,
                    "p": cell.adjusted_p,
                }
