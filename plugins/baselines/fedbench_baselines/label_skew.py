"""Methods against label skew: what this package registers of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedbench.types import Recipe

from . import balanced_softmax, ccvr, feddecorr, fedlc, fedntd, fedrs

PLUGINS: Mapping[str, type] = {
    "fedlc": fedlc.FedLC,
    "fedrs": fedrs.FedRS,
    "balanced_softmax": balanced_softmax.BalancedSoftmax,
    "fedntd": fedntd.FedNTD,
    "feddecorr": feddecorr.FedDecorr,
    "ccvr": ccvr.Ccvr,
}

AVERAGED: Mapping[str, Mapping[str, Any]] = {"exchange": {}, "mean": {}}
"""Clients train the received weights; the server averages what they send back."""

RECIPES: Mapping[str, Recipe] = {
    "fedlc": Recipe(
        plugins={**AVERAGED, "fedlc": {}},
        about="cross-entropy of logits that are calibrated by the client's class counts",
        source="Zhang et al., FL with Label Distribution Skew via Logits Calibration, ICML 2022",
        family="label skew",
    ),
    "fedrs": Recipe(
        plugins={**AVERAGED, "fedrs": {}},
        about="a restricted softmax scales the logits of classes that the client does not hold",
        source="Li and Zhan, FedRS, KDD 2021",
        family="label skew",
    ),
    "balanced_softmax": Recipe(
        plugins={**AVERAGED, "balanced_softmax": {}},
        about="cross-entropy of logits that are adjusted by the logarithms of the client's class "
        "shares",
        source="Ren et al., Balanced Meta-Softmax, NeurIPS 2020; Menon et al., ICLR 2021",
        family="label skew",
    ),
    "fedntd": Recipe(
        plugins={**AVERAGED, "cross_entropy": {}, "fedntd": {}},
        about="distil what the received model knows about the classes that are not true",
        source="Lee et al., Preservation of the Global Knowledge by Not-True Distillation, "
        "NeurIPS 2022",
        family="label skew",
    ),
    "feddecorr": Recipe(
        plugins={**AVERAGED, "cross_entropy": {}, "feddecorr": {}},
        about="a penalty on correlated features, against their dimensional collapse",
        source="Shi et al., Dimensional Collapse in Heterogeneous FL, ICLR 2023",
        family="label skew",
    ),
    "ccvr": Recipe(
        plugins={**AVERAGED, "cross_entropy": {}, "ccvr": {}},
        about="the last round retrains the classifier on virtual features, drawn from Gaussians",
        source="Luo et al., No Fear of Heterogeneity, NeurIPS 2021",
        family="label skew",
    ),
}
