"""Methods with prototypes after FedProto and FPL: what this package registers of them."""

from __future__ import annotations

from collections.abc import Mapping

from fedbench.types import Recipe

from . import fedgh, fednh, fedpcl, fedplvm, fedproc, fedtgp
from .label_skew import AVERAGED

PLUGINS: Mapping[str, type] = {
    "fedtgp": fedtgp.FedTGP,
    "fedpcl": fedpcl.FedPCL,
    "fedproc": fedproc.FedProc,
    "fedplvm": fedplvm.FedPLVM,
    "fednh": fednh.FedNH,
    "fedgh": fedgh.FedGH,
}

RECIPES: Mapping[str, Recipe] = {
    "fedtgp": Recipe(
        plugins={**AVERAGED, "cross_entropy": {}, "fedtgp": {}},
        about="the server trains global prototypes with a margin; weights are averaged too",
        source="Zhang et al., FedTGP, AAAI 2024, in the form with shared weights",
        family="prototypes",
    ),
    "fedtgp-aaai": Recipe(
        plugins={"personal": {}, "cross_entropy": {}, "fedtgp": {}},
        about="only prototypes are exchanged; the server trains the global ones with a margin",
        source="Zhang et al., FedTGP, AAAI 2024",
        family="prototypes",
    ),
    "fedpcl": Recipe(
        plugins={**AVERAGED, "cross_entropy": {}, "fedpcl": {}},
        about="contrast features with the class prototypes of all clients",
        source="Tan et al., Federated Learning from Pre-Trained Models, NeurIPS 2022, without "
        "pre-trained backbones",
        family="prototypes",
    ),
    "fedproc": Recipe(
        plugins={**AVERAGED, "fedproc": {}},
        about="a contrast with class prototypes leads at first, cross-entropy at the end",
        source="Mu et al., FedProc, Future Generation Computer Systems 143, 2023",
        family="prototypes",
    ),
    "fedplvm": Recipe(
        # The released weight, 100, is for momentum 0.5; at 0.9, steps are five times as long.
        plugins={**AVERAGED, "cross_entropy": {}, "fedplvm": {"weight": 20.0}},
        about="prototypes clustered at the clients and again on the server, with a sparsity loss",
        source="Wang et al., Taming Cross-Domain Representation Variance, NeurIPS 2024",
        family="prototypes",
    ),
    "fednh": Recipe(
        plugins={"exchange": {}, "mean": {"weights": "uniform"}, "fednh": {}},
        about="the classifier's rows are unit class prototypes that only the server moves",
        source="Dai et al., Tackling Data Heterogeneity in FL with Class Prototypes, AAAI 2023",
        family="prototypes",
    ),
    "fedgh": Recipe(
        plugins={"personal": {}, "cross_entropy": {}, "fedgh": {}},
        about="the server trains a shared classifier on class means; extractors stay personal",
        source="Yi et al., FedGH, ACM Multimedia 2023",
        family="prototypes",
    ),
}
