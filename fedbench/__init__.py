"""fedbench: a plugin-based benchmark toolkit for federated learning.

Federated learning (FL) trains one model on the data of many clients without collecting the data.
fedbench runs FL methods under the same protocol and compares them::

    import fedbench

    result = fedbench.run("fedhpro", data="digits", rounds=5)
    print(result.accuracy.mean, result.accuracy.domains)
    fedbench.compare(["fedavg", "fedhpro"], data="digits", seeds=5)
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take most of the time that this module takes
if TYPE_CHECKING:
    from typing import Any

    from .config.model import RunConfig
    from .config.resolve import load_config, resolve
    from .context import ClientContext, ServerContext
    from .engine.run import Run
    from .errors import ConfigError, FedbenchError, PluginError
    from .hookspecs import hookimpl
    from .interface.calls import compare, load, load_comparison, reproduce, resume, run, tune
    from .interface.charts import Chart
    from .interface.comparisons import Comparison
    from .interface.reproductions import Reproduced
    from .interface.results import RunResult
    from .interface.tunings import TuningResult
    from .options import Search
    from .plugins.discovery import discover
    from .text import Unit
    from .training import Training
    from .types import (
        Batch,
        ClientResult,
        Dataset,
        Encoded,
        Examples,
        Output,
        Payload,
        PerClass,
        Recipe,
        Report,
        RoundResult,
        RunStatus,
        ServerState,
        ServerUpdate,
        Value,
        Weights,
    )

_HOME = {
    "config.model": ("RunConfig",),
    "config.resolve": ("load_config", "resolve"),
    "context": ("ClientContext", "ServerContext"),
    "errors": ("ConfigError", "FedbenchError", "PluginError"),
    "hookspecs": ("hookimpl",),
    "engine.run": ("Run",),
    "interface.calls": (
        *("compare", "load", "load_comparison", "reproduce", "resume", "run", "tune"),
    ),
    "interface.charts": ("Chart",),
    "interface.comparisons": ("Comparison",),
    "interface.reproductions": ("Reproduced",),
    "interface.results": ("RunResult",),
    "interface.tunings": ("TuningResult",),
    "options": ("Search",),
    "plugins.discovery": ("discover",),
    "text": ("Unit",),
    "training": ("Training",),
    "types": (
        *("Batch", "ClientResult", "Dataset", "Encoded", "Examples", "Output", "Payload"),
        *("PerClass", "Recipe", "Report", "RoundResult", "RunStatus", "ServerState"),
        *("ServerUpdate", "Value", "Weights"),
    ),
}

__all__ = [
    "Batch",
    "Chart",
    "ClientContext",
    "ClientResult",
    "Comparison",
    "ConfigError",
    "Dataset",
    "Encoded",
    "Examples",
    "FedbenchError",
    "Output",
    "Payload",
    "PerClass",
    "PluginError",
    "Recipe",
    "Report",
    "Reproduced",
    "RoundResult",
    "Run",
    "RunConfig",
    "RunResult",
    "RunStatus",
    "Search",
    "ServerContext",
    "ServerState",
    "ServerUpdate",
    "Training",
    "TuningResult",
    "Unit",
    "Value",
    "Weights",
    "compare",
    "discover",
    "hookimpl",
    "load",
    "load_comparison",
    "load_config",
    "reproduce",
    "resolve",
    "resume",
    "run",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``fedbench --help`` does not wait for torch."""
    from importlib import import_module

    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
