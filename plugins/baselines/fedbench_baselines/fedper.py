"""FedPer: the feature extractor is averaged; every client keeps its own classifier.

Arivazhagan, Aggarwal, Singh, Choudhary: Federated Learning with Personalization Layers, 2019
(arXiv). What is said of the paper here is from memory; it was not re-read.

Both parts are trained together, in every epoch. The paper makes the last one or more blocks
personal; here it is the classifier. The mean is by number of examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .personal_parts import Kept


@dataclass(frozen=True, eq=False)
class FedPer(Kept):
    """Keep the classifier with the client: it is trained there, never travels, and is scored."""

    key: ClassVar[str] = "fedper.classifier"
