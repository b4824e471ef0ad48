"""Virtual time: clocks, schedules and methods for slow clients, by name."""

from __future__ import annotations

from collections.abc import Mapping

from . import clocks, trace

PLUGINS: Mapping[str, type] = {
    "constant": clocks.Constant,
    "lognormal": clocks.LogNormal,
    "two_class": clocks.TwoClass,
    "trace": trace.Trace,
}
