"""The architectures of torchvision and timm, each with its last layer replaced by a classifier.

Both packages are imported only by runs that use them.
"""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench.errors import ConfigError, TemporaryError, did_you_mean
from fedbench.text import summary

from .shapes import image_shape

SIDE = 224
"""Pixels on a side for which most architectures were made."""

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Further classifiers of GoogLeNet and Inception, which only their own loss would use."""

Size = Annotated[
    int | None,
    Field(ge=1, description="resize images to size x size pixels; null for the data set's own"),
]


class ZooModule(nn.Module):
    """A network that ends in features (B, d), and a linear classifier.

    Args:
        network: maps images (B, channels, height, width) to features.
        d: feature size.
        classes: C.
        size: pixels to which images are resized, or ``None``.
        repeat: how often channels are repeated: 3 for grey images in a network for colours.
    """

    def __init__(
        self, network: nn.Module, d: int, classes: int, size: int | None, repeat: int
    ) -> None:
        super().__init__()
        self.network, self.size, self.repeat = network, size, repeat
        self.classifier = nn.Linear(d, classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, channels, height, width) to features (B, d)."""
        found: Tensor = self.network(prepared(x, self.size, self.repeat))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def prepared(x: Tensor, size: int | None, repeat: int) -> Tensor:
    """Return images (B, channels, h, w) resized bilinearly, with their channels repeated."""
    if size is not None and x.shape[2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.repeat(1, repeat, 1, 1) if repeat > 1 else x


def feature_size(
    network: nn.Module, what: str, shape: tuple[int, ...], size: int | None, repeat: int, hint: int
) -> int:
    """Return d, found by running ``network`` on one image.

    Args:
        network: see `ZooModule`, as are ``size`` and ``repeat``.
        what: names the model in errors.
        shape: of one image of the data set.
        hint: the size to suggest when the network cannot take such images.

    Raises:
        ConfigError: when the network cannot take images of this shape.
    """
    training = network.training
    try:
        with torch.no_grad():
            found = network.eval()(prepared(torch.zeros(1, *shape), size, repeat))
    except Exception as error:
        other = f"set model.size={hint}, which resizes them" if size is None else "change it"
        given = f"of shape {shape}" + ("" if size is None else f" with model.size={size}")
        raise ConfigError(
            f"{what} cannot take images {given} ({summary(error)}): {other}"
        ) from error
    finally:
        network.train(training)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise ConfigError(
            f"{what} cannot be used: without its last layer it has no features (B, d)"
        )
    return int(found.shape[1])


def without_head(network: nn.Module) -> nn.Module:
    """Remove the last linear layer of a network of torchvision, and all auxiliary classifiers."""
    for name in AUXILIARY:
        if hasattr(network, name):
            setattr(network, name, None)
            network.aux_logits = False  # type: ignore[assignment]
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if linear:
        parent, _, last = linear[-1].rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Identity())
    else:  # SqueezeNet's classifier is a convolution; its features are averaged over the pixels
        network.classifier = nn.AdaptiveAvgPool2d(1)
    return network


@dataclass(frozen=True, eq=False)
class Torchvision:
    """Any classification model of torchvision, by name, with random or pretrained weights.

    https://docs.pytorch.org/vision/stable/models.html lists names, weights and papers. The last
    linear layer is replaced by ``classifier``; what went into it are the features. Grey images
    are repeated to three channels. Images that are too small for an architecture are refused before
    round 1; ``size`` resizes them. Pretrained weights expect inputs normalised as in their
    training, for most with ``normalize`` mean 0.485, 0.456, 0.406 and std 0.229, 0.224, 0.225.
    """

    architecture: Annotated[
        str, Field(description="name in torchvision.models, for example mobilenet_v3_small")
    ] = "resnet18"
    weights: Annotated[
        str | None,
        Field(description="pretrained weights, for example IMAGENET1K_V1; null for random ones"),
    ] = None
    size: Size = None

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> ZooModule:
        """Return the model for images of ``input_shape`` with one or three channels.

        Raises:
            ConfigError: for an unknown architecture or weights, or images that it cannot take.
            TemporaryError: when the weights cannot be downloaded.
        """
        channels, _, _ = image_shape("torchvision", input_shape)
        if channels not in (1, 3):
            raise ConfigError(
                f"model 'torchvision' needs images with 1 or 3 channels; the inputs of this data "
                f"set have shape {input_shape}"
            )
        weights = self._weights()
        network = without_head(self._network(weights))
        smallest = max(weights.meta["min_size"]) if weights else 0
        what = f"model 'torchvision': {self.architecture}"
        repeat = 3 // channels
        d = feature_size(network, what, input_shape, self.size, repeat, max(SIDE, smallest))
        return ZooModule(network, d, num_classes, self.size, repeat)

    def _weights(self) -> Any:
        """Return the member of torchvision's enum of weights, or ``None``."""
        from torchvision import models

        known = models.list_models(module=models)
        if self.architecture not in known:
            raise ConfigError(
                f"model 'torchvision': no architecture {self.architecture!r}"
                f"{did_you_mean(self.architecture, known)}"
            )
        if self.weights is None:
            return None
        offered = models.get_model_weights(self.architecture).__members__
        if self.weights not in offered:
            raise ConfigError(
                f"model 'torchvision': {self.architecture} has no weights {self.weights!r}"
                f"{did_you_mean(self.weights, offered)}"
            )
        return offered[self.weights]

    def _network(self, weights: Any) -> nn.Module:
        from torchvision import models

        if weights is None:
            # These two warn unless they are told whether to initialise.
            named = self.architecture in ("googlenet", "inception_v3")
            more = {"init_weights": True} if named else {}
            network: nn.Module = models.get_model(self.architecture, weights=None, **more)
            return network
        try:
            network = models.get_model(self.architecture, weights=weights, progress=False)
        except (OSError, RuntimeError) as error:
            folder = Path(torch.hub.get_dir(), "checkpoints")
            raise TemporaryError(
                f"model 'torchvision': cannot get the weights {self.weights} of "
                f"{self.architecture} ({summary(error)}): without a network, put the file "
                f"{weights.url} into {folder}, or set model.weights=null"
            ) from error
        return network


@dataclass(frozen=True, eq=False)
class Timm:
    """Any model of timm, by name, with random or pretrained weights; needs the extra ``timm``.

    timm (Wightman, PyTorch Image Models, 2019, https://github.com/huggingface/pytorch-image-models)
    lists its names with ``timm.list_models()``. ``classifier`` replaces the model's own; what went
    into it are the features. Images that are too small for an architecture are refused before
    round 1; ``size`` resizes them. Pretrained weights expect inputs normalised as in their
    training.
    """

    packages: ClassVar[tuple[str, ...]] = ("timm",)

    architecture: Annotated[
        str, Field(description="name in timm.list_models(), for example resnet18.a1_in1k")
    ] = "resnet18"
    pretrained: Annotated[
        bool, Field(description="whether to begin with the weights that timm has for this name")
    ] = False
    size: Size = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("timm") is None:
            raise ValueError("needs timm: pip install 'fedbench-toolkit[timm]'")

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> ZooModule:
        """Return the model for images of ``input_shape``.

        Raises:
            ConfigError: for an unknown architecture, or images that it cannot take.
            TemporaryError: when the weights cannot be downloaded.
        """
        channels, _, _ = image_shape("timm", input_shape)
        network = self._network(channels)
        what = f"model 'timm': {self.architecture}"
        made_for = getattr(network, "pretrained_cfg", {}).get("input_size", (SIDE,))[-1]
        d = feature_size(network, what, input_shape, self.size, 1, made_for)
        return ZooModule(network, d, num_classes, self.size, 1)

    def _network(self, channels: int) -> nn.Module:
        import timm

        name = self.architecture
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=1)
            more = f" (did you mean {near[0]!r}?)" if near else "; timm.list_models() lists them"
            raise ConfigError(f"model 'timm': no architecture {name!r}{more}")
        if self.pretrained and not timm.is_model_pretrained(name):
            raise ConfigError(
                f"model 'timm': there are no pretrained weights for {name}: set "
                "model.pretrained=false"
            )
        given = {"pretrained": self.pretrained, "num_classes": 0, "in_chans": channels}
        try:
            network: nn.Module = timm.create_model(name, **given)
        except Exception as error:  # of whatever kind its client for downloads has
            if not self.pretrained:
                raise
            raise TemporaryError(
                f"model 'timm': cannot get the pretrained weights of {name} "
                f"({summary(error)}): download them once with a network, into the cache that "
                "HF_HOME names, or set model.pretrained=false"
            ) from error
        return network
