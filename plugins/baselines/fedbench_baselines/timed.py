"""Virtual time: clocks, schedules and methods for slow clients, by name."""

from __future__ import annotations

from collections.abc import Mapping

from fedbench import Recipe

from . import clocks, partial_work, schedules, trace

PLUGINS: Mapping[str, type] = {
    "constant": clocks.Constant,
    "lognormal": clocks.LogNormal,
    "two_class": clocks.TwoClass,
    "trace": trace.Trace,
    "deadline": schedules.Deadline,
    "soft_deadline": schedules.SoftDeadline,
    "over_select": schedules.OverSelect,
    "buffered": schedules.Buffered,
    "asynchronous": schedules.Asynchronous,
    "partial_work": partial_work.PartialWork,
}

RECIPES: Mapping[str, Recipe] = {
    "fedbuff": Recipe(
        plugins={
            "exchange": {},
            "mean": {"weights": "uniform"},
            "cross_entropy": {},
            "lognormal": {},
            "buffered": {},
        },
        about="the server updates the model with every few results, whichever arrive first",
        source="Nguyen et al., FL with Buffered Asynchronous Aggregation, AISTATS 2022",
        family="asynchronous",
    ),
    "fedasync": Recipe(
        plugins={
            "exchange": {},
            "mean": {},
            "cross_entropy": {},
            "lognormal": {},
            "asynchronous": {},
        },
        about="the server mixes every result into the model as it arrives, late ones less",
        source="Xie, Koyejo, Gupta, Asynchronous Federated Optimization, 2019",
        family="asynchronous",
    ),
}
