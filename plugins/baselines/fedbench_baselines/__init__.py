"""The bundled methods and the parts that every run needs: training, sampling, models, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

from fedbench.contracts import Metric, ModelSource
from fedbench.hookspecs import hookimpl
from fedbench.types import Recipe

from . import (
    adam,
    anchor_diagnostics,
    defences,
    drift,
    fair,
    faults,
    fedavg,
    fedproto,
    fedprox,
    fpl,
    label_skew,
    metrics,
    models,
    moon,
    personalised,
    prototype_methods,
    qsgd,
    sampling,
    sgd,
    signsgd,
    stragglers,
    timed,
    topk,
    trackers,
)

fedbench_api = 1


@hookimpl
def register_plugins() -> Mapping[str, type]:
    """Return the bundled run plugins."""
    return {
        "uniform": sampling.Uniform,
        "by_size": sampling.BySize,
        "sgd": sgd.Sgd,
        "adam": adam.Adam,
        "adamw": adam.AdamW,
        "cross_entropy": sgd.CrossEntropy,
        "exchange": fedavg.Exchange,
        "mean": fedavg.Mean,
        "fedprox": fedprox.FedProx,
        "moon": moon.Moon,
        "fedproto": fedproto.FedProto,
        "personal": fedproto.Personal,
        "fpl": fpl.Fpl,
        "sign_majority": signsgd.SignMajority,
        "topk": topk.TopK,
        "qsgd": qsgd.Qsgd,
        "signsgd": signsgd.SignSgd,
        "faults": faults.Faults,
        "stragglers": stragglers.Stragglers,
        "tensorboard": trackers.TensorBoard,
        "mlflow": trackers.Mlflow,
        "wandb": trackers.Wandb,
        "anchor_diagnostics": anchor_diagnostics.AnchorDiagnostics,
        **drift.PLUGINS,
        **label_skew.PLUGINS,
        **prototype_methods.PLUGINS,
        **defences.PLUGINS,
        **fair.PLUGINS,
        **personalised.PLUGINS,
        **timed.PLUGINS,
    }


@hookimpl
def register_models() -> Mapping[str, type[ModelSource]]:
    """Return the bundled models."""
    return {
        "logistic": models.Logistic,
        "mlp": models.Mlp,
        "cnn": models.Cnn,
        "lenet5": models.LeNet5,
        "resnet10": models.ResNet10,
        "resnet18": models.ResNet18,
        "char_lstm": models.CharLstm,
        "torchvision": models.Torchvision,
        "timm": models.Timm,
    }


@hookimpl
def register_metrics() -> Mapping[str, type[Metric]]:
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
            plugins={"exchange": {}, "mean": {}, "cross_entropy": {}},
            about="average the clients' weights, weighted by number of examples",
            source="McMahan et al., Communication-Efficient Learning, AISTATS 2017",
            family="averaging",
        ),
        "fedprox": Recipe(
            plugins={"exchange": {}, "mean": {}, "cross_entropy": {}, "fedprox": {}},
            about="a proximal term keeps local weights near the received ones",
            source="Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020",
            family="drift",
        ),
        "moon": Recipe(
            plugins={"exchange": {}, "mean": {}, "cross_entropy": {}, "moon": {}},
            about="pull features towards the global model's, push them away from the client's "
            "previous model's",
            source="Li et al., Model-Contrastive Federated Learning, CVPR 2021",
            family="drift",
        ),
        "fedproto": Recipe(
            plugins={"exchange": {}, "mean": {}, "cross_entropy": {}, "fedproto": {}},
            about="pull features towards one global prototype per class; weights are averaged too",
            source="Tan et al., FedProto, AAAI 2022, in the form with shared weights",
            family="prototypes",
        ),
        "fedproto-aaai": Recipe(
            plugins={"personal": {}, "cross_entropy": {}, "fedproto": {"average": "by_count"}},
            about="only prototypes are exchanged; every client keeps its own model",
            source="Tan et al., FedProto, AAAI 2022",
            family="prototypes",
        ),
        "fpl": Recipe(
            plugins={"exchange": {}, "mean": {}, "cross_entropy": {}, "fpl": {}},
            about="a contrastive loss with clustered prototypes, a consistency loss with their "
            "mean",
            source="Huang et al., Rethinking FL with Domain Shift, CVPR 2023",
            family="prototypes",
        ),
        **drift.RECIPES,
        **label_skew.RECIPES,
        **prototype_methods.RECIPES,
        **defences.RECIPES,
        **fair.RECIPES,
        **personalised.RECIPES,
        **timed.RECIPES,
    }


@hookimpl
def register_reproductions() -> Mapping[str, Traversable]:
    """Return published results that can be repeated, one YAML file each."""
    folder = resources.files(__name__) / "reproductions"
    files = sorted(folder.iterdir(), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): f for f in files if f.name.endswith(".yaml")}
