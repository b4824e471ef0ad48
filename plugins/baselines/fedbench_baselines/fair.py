"""Methods for fairness between clients: what this package registers of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedbench.types import Recipe

from . import afl, qfedavg, term

PLUGINS: Mapping[str, type] = {
    "qfedavg": qfedavg.QFedAvg,
    "afl": afl.Afl,
    "term": term.Term,
}


def _instead_of_the_mean(name: str) -> dict[str, dict[str, Any]]:
    return {"exchange": {}, name: {}, "cross_entropy": {}}


RECIPES: Mapping[str, Recipe] = {
    "qfedavg": Recipe(
        plugins=_instead_of_the_mean("qfedavg"),
        about="clients with a high loss count more in the step",
        source="Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020",
        family="fairness",
    ),
    "afl": Recipe(
        plugins=_instead_of_the_mean("afl"),
        about="clients' shares in the mean move towards those with a high loss",
        source="Mohri et al., Agnostic Federated Learning, ICML 2019",
        family="fairness",
    ),
    "term": Recipe(
        plugins=_instead_of_the_mean("term"),
        about="the mean is tilted towards clients with a high loss",
        source="Li et al., Tilted Empirical Risk Minimization, ICLR 2021",
        family="fairness",
    ),
}
