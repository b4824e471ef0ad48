"""Methods against client drift, and server optimisers: what this package registers of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedbench.types import Recipe

from . import fedacg, fedavgm, feddyn, fedexp, fednova, fedopt, fedsam, scaffold

PLUGINS: Mapping[str, type] = {
    "scaffold": scaffold.Scaffold,
    "fednova": fednova.FedNova,
    "feddyn": feddyn.FedDyn,
    "fedavgm": fedavgm.FedAvgM,
    "fedadam": fedopt.FedAdam,
    "fedyogi": fedopt.FedYogi,
    "fedadagrad": fedopt.FedAdagrad,
    "fedsam": fedsam.FedSam,
    "fedasam": fedsam.FedAsam,
    "fedexp": fedexp.FedExP,
    "fedacg": fedacg.FedAcg,
}


DRIFT, SERVER = "drift", "server optimisers"

CLIENTS = {"scaffold", "feddyn", "fedsam", "fedasam", "fedacg"}
"""The methods that change what clients compute; the others change the server's step."""


def _method(name: str, about: str, source: str, **mean: Any) -> Recipe:
    """Return FedAvg with one more plugin; ``mean`` are options of the plugin ``mean``."""
    family = DRIFT if name in CLIENTS else SERVER
    plugins = {name: {}, "exchange": {}, "mean": mean, "cross_entropy": {}}
    return Recipe(plugins=plugins, about=about, source=source, family=family)


REDDI = "Reddi et al., Adaptive Federated Optimization, ICLR 2021"
CALDAROLA = "Caldarola et al., Improving Generalization in FL by Seeking Flat Minima, ECCV 2022"

RECIPES: Mapping[str, Recipe] = {
    "scaffold": _method(
        "scaffold",
        "control variates correct each local step for the client's drift",
        "Karimireddy et al., SCAFFOLD, ICML 2020",
        weights="uniform",
    ),
    "fednova": Recipe(
        plugins={"fednova": {}, "exchange": {}, "cross_entropy": {}},
        about="updates are divided by the clients' effective numbers of local steps",
        source="Wang et al., Tackling the Objective Inconsistency Problem, NeurIPS 2020",
        family=DRIFT,
    ),
    "feddyn": _method(
        "feddyn",
        "each client's objective changes with its past, so that optima agree",
        "Acar et al., Federated Learning Based on Dynamic Regularization, ICLR 2021",
        weights="uniform",
    ),
    "fedavgm": _method(
        "fedavgm",
        "the server applies momentum to the mean update",
        "Hsu et al., Measuring the Effects of Non-Identical Data Distribution, 2019",
    ),
    "fedadam": _method("fedadam", "the server applies Adam's rule to the mean update", REDDI),
    "fedyogi": _method("fedyogi", "the server applies Yogi's rule to the mean update", REDDI),
    "fedadagrad": _method(
        "fedadagrad", "the server applies Adagrad's rule to the mean update", REDDI
    ),
    "fedsam": _method(
        "fedsam", "local steps use the gradient at the worst nearby weights", CALDAROLA
    ),
    "fedasam": _method(
        "fedasam", "FedSAM with perturbations in proportion to the weights", CALDAROLA
    ),
    "fedexp": _method(
        "fedexp",
        "the server extrapolates, the more the clients' updates disagree",
        "Jhunjhunwala et al., FedExP, ICLR 2023",
    ),
    "fedacg": _method(
        "fedacg",
        "clients start ahead of the global weights, moved by the server's momentum",
        "Kim et al., Communication-Efficient FL with Accelerated Client Gradient, CVPR 2024",
        weights="uniform",
    ),
}
