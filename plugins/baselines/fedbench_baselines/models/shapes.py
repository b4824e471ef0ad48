"""The shapes of images, and the error for inputs that are not images."""

from __future__ import annotations

from fedbench.errors import ConfigError


def image_shape(name: str, shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """Return ``shape`` as (channels, height, width).

    Args:
        name: the model's registered name, for the error.
        shape: of one input.
        smallest: pixels that the model needs on both sides.

    Raises:
        ConfigError: when it is not the shape of an image, or the image is too small.
    """
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise ConfigError(
            f"model {name!r} needs images of at least {smallest} x {smallest} pixels "
            f"(channels, height, width); the inputs of this data set have shape {shape}"
        )
    channels, height, width = shape
    return channels, height, width
