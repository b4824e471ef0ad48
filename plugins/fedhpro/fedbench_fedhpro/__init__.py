"""FedHPro (Wang et al., ICML 2026, arXiv 2605.13475); each of its parts is a plugin."""

from __future__ import annotations

from collections.abc import Mapping

from fedbench.hookspecs import hookimpl
from fedbench.types import Recipe

from . import class_batches, hyper_prototypes, losses, recalibration

fedbench_api = 1
SOURCE = "Wang et al., Federated Hyper-Prototype Learning via Gradient Matching, ICML 2026"


@hookimpl
def register_plugins() -> Mapping[str, type]:
    """Return the plugins that make up FedHPro."""
    return {
        "class_batches": class_batches.ClassBatches,
        "recalibration": recalibration.Recalibration,
        "hyper_prototypes": hyper_prototypes.HyperPrototypes,
        "hpcl": losses.Hpcl,
        "hpal": losses.Hpal,
    }


def _recipe(about: str, **hpcl: str) -> Recipe:
    exchanged = ("exchange", "mean", "class_batches", "recalibration", "hyper_prototypes")
    parts = (*exchanged, "cross_entropy")
    plugins = {**{name: {} for name in parts}, "hpcl": hpcl, "hpal": {}}
    return Recipe(plugins, about, SOURCE, family="prototypes")


@hookimpl
def register_recipes() -> Mapping[str, Recipe]:
    """Return the method as the paper describes it and with the released code's settings."""
    return {
        "fedhpro": _recipe(
            "hyper-prototypes, learned by gradient matching, attract and separate the features",
            reduction="mean",
            margin="round",
        ),
        "fedhpro-published": _recipe(
            "FedHPro with the settings of the released code, whose faults are corrected",
            reduction="published",
            margin="off",
        ),
    }
