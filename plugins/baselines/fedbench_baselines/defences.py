"""Robust aggregation, attacks and privacy: their plugins and methods by name."""

from __future__ import annotations

from collections.abc import Mapping

from fedbench import Recipe

from . import attack_plugins, clipping, krum, median, privacy, rfa, trimmed_mean

PLUGINS: Mapping[str, type] = {
    "median": median.Median,
    "trimmed_mean": trimmed_mean.TrimmedMean,
    "krum": krum.Krum,
    "multi_krum": krum.MultiKrum,
    "geometric_median": rfa.GeometricMedian,
    "norm_clip": clipping.NormClip,
    "label_flip": attack_plugins.LabelFlip,
    "sign_flip": attack_plugins.SignFlip,
    "gaussian": attack_plugins.Gaussian,
    "alie": attack_plugins.Alie,
    "ipm": attack_plugins.Ipm,
    "backdoor": attack_plugins.Backdoor,
    "dp": privacy.Dp,
}

RECIPES: Mapping[str, Recipe] = {
    "median": Recipe(
        plugins={"exchange": {}, "median": {}, "cross_entropy": {}},
        about="the coordinate median of the clients' updates instead of their mean",
        source="Yin et al., Byzantine-Robust Distributed Learning, ICML 2018",
        family="robust aggregation",
    ),
    "trimmed-mean": Recipe(
        plugins={"exchange": {}, "trimmed_mean": {}, "cross_entropy": {}},
        about="the mean of the clients' updates without the extreme values of each coordinate",
        source="Yin et al., Byzantine-Robust Distributed Learning, ICML 2018",
        family="robust aggregation",
    ),
    "krum": Recipe(
        plugins={"exchange": {}, "krum": {}, "cross_entropy": {}},
        about="the one update that is nearest to most of the others",
        source="Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017",
        family="robust aggregation",
    ),
    "multi-krum": Recipe(
        plugins={"exchange": {}, "multi_krum": {}, "cross_entropy": {}},
        about="the mean of the updates that are nearest to most of the others",
        source="Blanchard et al., Machine Learning with Adversaries, NeurIPS 2017",
        family="robust aggregation",
    ),
    "rfa": Recipe(
        plugins={"exchange": {}, "geometric_median": {}, "cross_entropy": {}},
        about="the geometric median of the clients' updates",
        source="Pillutla et al., Robust Aggregation for FL, IEEE TSP 2022",
        family="robust aggregation",
    ),
    "norm-clip": Recipe(
        plugins={"exchange": {}, "norm_clip": {}, "cross_entropy": {}},
        about="the mean of the clients' updates, none of them longer than a bound",
        source="Sun et al., Can You Really Backdoor Federated Learning?, 2019",
        family="robust aggregation",
    ),
    "dp-fedavg": Recipe(
        plugins={"exchange": {}, "dp": {}, "cross_entropy": {}},
        about="the mean of clipped updates with noise, private for every client; for models "
        "without batch norm",
        source="McMahan et al., Differentially Private Recurrent Language Models, ICLR 2018",
        family="privacy",
    ),
}
