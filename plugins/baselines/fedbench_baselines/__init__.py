"""Bundled methods and the pieces that every run is made of: training, sampling, models, metrics."""

from __future__ import annotations

from collections.abc import Mapping

from fedbench.hookspecs import hookimpl
from fedbench.types import Recipe

from . import fedavg, metrics, models, sampling, sgd


@hookimpl
def register_plugins() -> Mapping[str, type]:
    """Return the bundled run plugins."""
    return {
        "uniform": sampling.Uniform,
        "sgd": sgd.Sgd,
        "cross_entropy": sgd.CrossEntropy,
        "fedavg": fedavg.FedAvg,
    }


@hookimpl
def register_models() -> Mapping[str, type]:
    """Return the bundled models."""
    return {"cnn": models.Cnn, "resnet10": models.ResNet10}


@hookimpl
def register_metrics() -> Mapping[str, type]:
    """Return the bundled metrics."""
    return {
        "accuracy": metrics.Accuracy,
        "loss": metrics.Loss,
        "class_accuracy": metrics.ClassAccuracy,
    }


@hookimpl
def register_recipes() -> Mapping[str, Recipe]:
    """Return the bundled methods."""
    return {
        "fedavg": Recipe(
            plugins={"fedavg": {}, "cross_entropy": {}},
            about="the mean of the clients' weights, by number of examples",
            source="McMahan et al., Communication-Efficient Learning, AISTATS 2017",
        ),
    }
