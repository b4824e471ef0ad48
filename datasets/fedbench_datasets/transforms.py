"""Transforms of whole batches, with random parameters per sample.

Each is a pure function of the batch and its parameters, and a plugin that draws the parameters: on
the CPU, so that a run gets the same numbers on every device, and only for training. Inputs are
never changed in place. Random changes of pixels belong before ``normalize``, except ``cutout``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl


def check_images(plugin: str, inputs: Tensor) -> None:
    """Check that ``inputs`` are images.

    Raises:
        ConfigError: when they are not; it names the plugin and the shape.
    """
    if inputs.ndim != 4:
        raise ConfigError(
            f"{plugin} takes images (B, channels, height, width); the inputs are "
            f"(B{''.join(f', {n}' for n in inputs.shape[1:])})"
        )


@dataclass(frozen=True, eq=False)
class Normalize:
    """Subtract a mean and divide by a standard deviation, one per channel or one for all."""

    expects: ClassVar[str] = "pixels"
    produces: ClassVar[str] = "normalised"

    mean: Annotated[
        tuple[float, ...], Field(min_length=1, description="mean of inputs in [0, 1]")
    ] = (0.5,)
    std: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        Field(min_length=1, description="standard deviation of inputs in [0, 1]"),
    ] = (0.5,)

    @hookimpl
    def transform(self, inputs: Tensor) -> Tensor:
        for option, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, inputs.shape[1]):
                raise ConfigError(
                    f"normalize.{option}: {len(values)} values for inputs with "
                    f"{inputs.shape[1]} channels"
                )
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        mean = inputs.new_tensor(self.mean).reshape(shape)
        return (inputs - mean) / inputs.new_tensor(self.std).reshape(shape)


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """Pad with zeros on all sides and crop to the original size, at a place of its own per sample.

    Args:
        images: (B, channels, height, width).
        top: (B,) int64, the first row kept, from 0 to ``2 * padding``.
        left: (B,) int64, the first column kept.
        padding: pixels added on each side.
    """
    height, width = images.shape[2:]
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, top, left]


@dataclass(frozen=True, eq=False)
class Crop:
    """Pad with zeros and crop back to the original size, at a random place (training only)."""

    expects: ClassVar[str] = "pixels"  # of which zeros are black

    padding: Annotated[int, Field(ge=0, description="pixels of zeros on each side")] = 4

    @hookimpl
    def transform(self, inputs: Tensor, train: bool, rng: Generator) -> Tensor:
        check_images("crop", inputs)
        if not train:
            return inputs
        place = torch.randint(2 * self.padding + 1, (2, len(inputs)), generator=rng)
        top, left = place.to(inputs.device)
        return crop(inputs, top, left, self.padding)


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the ``chosen`` (B,) samples of ``images`` (B, channels, height, width) left-right."""
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


@dataclass(frozen=True, eq=False)
class Flip:
    """Mirror an image left-right with a probability (training only)."""

    p: Annotated[float, Field(ge=0, le=1, description="probability")] = 0.5

    @hookimpl
    def transform(self, inputs: Tensor, train: bool, rng: Generator) -> Tensor:
        check_images("flip", inputs)
        if not train:
            return inputs
        chosen = torch.rand(len(inputs), generator=rng) < self.p
        return flip(inputs, chosen.to(inputs.device))


def grey(images: Tensor) -> Tensor:
    """Return the luma (B, 1, height, width) of RGB or grey ``images`` (ITU-R BT.601 weights)."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor((0.2989, 0.587, 0.114)).reshape(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def colour_jitter(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor
) -> Tensor:
    """Scale brightness, then contrast, then saturation; values stay in [0, 1].

    Contrast is the distance from the image's mean luma, saturation the distance from the pixel's.

    Args:
        images: (B, 1 or 3, height, width) in [0, 1].
        brightness: (B,) factors, at least 0; 1 changes nothing.
        contrast: (B,) factors.
        saturation: (B,) factors; without effect on grey images.
    """
    by, co, sa = (f[:, None, None, None] for f in (brightness, contrast, saturation))
    images = (images * by).clamp_(0, 1)
    images = torch.lerp(grey(images).mean(dim=(1, 2, 3), keepdim=True), images, co).clamp_(0, 1)
    return images if images.shape[1] == 1 else torch.lerp(grey(images), images, sa).clamp_(0, 1)


Strength = Annotated[float, Field(ge=0, description="factors from 1 - this (or 0) to 1 + this")]


@dataclass(frozen=True, eq=False)
class ColourJitter:
    """Change brightness, contrast and saturation by random factors, in this order (training only).

    For RGB or grey inputs in [0, 1], so before ``normalize``.
    """

    expects: ClassVar[str] = "pixels"

    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.4

    @hookimpl
    def transform(self, inputs: Tensor, train: bool, rng: Generator) -> Tensor:
        check_images("colour_jitter", inputs)
        if inputs.shape[1] not in (1, 3):
            raise ConfigError(
                f"colour_jitter takes images with 1 or 3 channels; these have {inputs.shape[1]}"
            )
        if not train:
            return inputs
        uniform = torch.rand(3, len(inputs), generator=rng).to(inputs.device)
        strengths = (self.brightness, self.contrast, self.saturation)
        lows = [max(0.0, 1 - s) for s in strengths]
        factors = [
            low + u * (1 + s - low) for u, s, low in zip(uniform, strengths, lows, strict=True)
        ]
        return colour_jitter(inputs, *factors)


def cutout(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Set one square per sample to 0; the part of it beyond the border is cut off.

    Args:
        images: (B, channels, height, width).
        top: (B,) int64, the square's first row; may be negative.
        left: (B,) int64, its first column.
        size: its side in pixels.
    """

    def within(first: Tensor, length: int) -> Tensor:
        distance = torch.arange(length, device=images.device) - first[:, None]
        return (distance >= 0) & (distance < size)

    height, width = images.shape[2:]
    square = within(top, height)[:, None, :, None] & within(left, width)[:, None, None, :]
    return images.clone().masked_fill_(square, 0)  # the clone keeps the memory format


@dataclass(frozen=True, eq=False)
class Cutout:
    """Set a square around a random pixel to 0 (training only; DeVries and Taylor, 2017).

    The square may extend beyond the border. After ``normalize``, 0 is the mean, as in the paper.
    """

    expects: ClassVar[str] = "normalised"

    size: Annotated[int, Field(ge=1, description="side of the square in pixels")] = 8

    @hookimpl
    def transform(self, inputs: Tensor, train: bool, rng: Generator) -> Tensor:
        check_images("cutout", inputs)
        if not train:
            return inputs
        rows = torch.randint(inputs.shape[2], (len(inputs),), generator=rng) - self.size // 2
        columns = torch.randint(inputs.shape[3], (len(inputs),), generator=rng) - self.size // 2
        return cutout(inputs, rows.to(inputs.device), columns.to(inputs.device), self.size)
