"""Bundled data sets, partitions, transforms and cards."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable

from fedbench.contracts import DataSource, ModelSource
from fedbench.hookspecs import hookimpl

from . import (
    dirichlet,
    embedded,
    fcube,
    hub,
    image_folder,
    modifiers,
    natural,
    partitions,
    public,
    public_domains,
    public_folders,
    public_mnist,
    public_text,
    synthetic,
    transforms,
)

fedbench_api = 1


@hookimpl
def register_datasets() -> Mapping[str, type[DataSource]]:
    """Return the bundled data sets."""
    classes = (
        *(embedded.Digits, synthetic.Synthetic, fcube.Fcube),
        *(public.Mnist, public.FashionMnist, public.Cifar10, public.Cifar100),
        *(public_mnist.MnistRotated, public_mnist.Emnist),
        *(public_domains.DigitsFull, public_domains.OfficeCaltech, public_domains.Pacs),
        *(public_folders.TinyImagenet, public_folders.Ham10000, public_folders.Sun397),
        *(public_text.AgNews, image_folder.ImageFolder, hub.Hub),
    )
    return {cls.name: cls for cls in classes}


@hookimpl
def register_models() -> Mapping[str, type[ModelSource]]:
    """Return the model for texts; the models for images are in the baselines package."""
    return {"text_embedding": public_text.TextEmbedding}


@hookimpl
def register_plugins() -> Mapping[str, type]:
    """Return the bundled partitions, modifiers of the training data, and transforms."""
    return {
        "domains": partitions.Domains,
        "natural": natural.Natural,
        "iid": partitions.Iid,
        "shards": partitions.Shards,
        "classes_per_client": partitions.ClassesPerClient,
        "biased": partitions.Biased,
        "dirichlet": dirichlet.Dirichlet,
        "quantity": dirichlet.Quantity,
        "long_tail": modifiers.LongTail,
        "subset": modifiers.Subset,
        "leave_out": modifiers.LeaveOut,
        "label_noise": modifiers.LabelNoise,
        "feature_noise": modifiers.FeatureNoise,
        "crop": transforms.Crop,
        "flip": transforms.Flip,
        "colour_jitter": transforms.ColourJitter,
        "cutout": transforms.Cutout,
        "normalize": transforms.Normalize,
    }


@hookimpl
def register_cards() -> Mapping[str, Traversable]:
    """Return the bundled protocol cards, one YAML file each."""
    folder = resources.files(__name__) / "cards"
    files = sorted(folder.iterdir(), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): f for f in files if f.name.endswith(".yaml")}
