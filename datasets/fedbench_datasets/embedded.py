"""Data sets embedded in the wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from fedbench.errors import ConfigError
from fedbench.types import Dataset, Examples

from . import digits


@dataclass(frozen=True, eq=False)
class Digits:
    """Four digit domains, 32 x 32 RGB: MNIST, UCI optdigits, MNIST-M's recipe, rendered fonts.

    They stand in, under their own names, for the four domains of the papers (MNIST, USPS, SVHN,
    SYN). Inputs are uint8 (N, 3, 32, 32). Sources and licences: ``datasets/README.md``.
    """

    name: ClassVar[str] = "digits"
    size: ClassVar[str] = "16,797 images in 4.5 MB"
    card: ClassVar[str] = "digits"
    default: ClassVar[bool] = True
    embedded: ClassVar[bool] = True
    licence: ClassVar[str] = "CC BY-SA 3.0 and 4.0, CC BY 4.0, Apache-2.0 by domain"
    source: ClassVar[str] = "MNIST, UCI optdigits, free photographs and fonts"
    domains: ClassVar[tuple[str, ...]] = digits.DOMAINS
    classes: ClassVar[tuple[str, ...]] = digits.CLASSES

    def load(self, root: Path) -> Dataset:
        """Compose the images from the packs in the wheel; ``root`` is not used.

        Raises:
            ConfigError: when a pack is missing or damaged.
        """
        try:
            arrays = digits.load()
        except digits.DigitsError as error:
            raise ConfigError(str(error)) from error

        def split(name: str) -> Examples:
            parts = [arrays[domain][name] for domain in self.domains]
            sizes = torch.tensor([len(labels) for _, labels in parts])
            return Examples(
                torch.cat([torch.from_numpy(images) for images, _ in parts]),
                torch.cat([torch.from_numpy(labels) for _, labels in parts]),
                torch.arange(len(parts)).repeat_interleave(sizes),
            )

        return Dataset(self.classes, self.domains, split("train"), split("test"))
