"""Centralised training: one client holds what the clients of the partition hold together.

It is the usual upper bound for federated methods, and one only with equal data and training: the
client has exactly the union of the examples that the partition gave out, which may be a small part
of the training set, and in a round it makes as many epochs as each client does. That is as many
gradient steps as all clients of a round make together, up to the last, smaller batches.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbench import hookimpl


@dataclass(frozen=True, eq=False)
class Centralised:
    """Give the examples of all clients to a single one, whatever the partition.

    It can be added to any method. What ``clients.test`` and ``clients.validation`` hold out is
    drawn from the union.
    """

    @hookimpl(wrapper=True)
    def partition(self) -> Generator[None, Sequence[Tensor], Sequence[Tensor]]:
        parts = yield
        return [torch.cat([torch.as_tensor(part, dtype=torch.int64) for part in parts]).sort()[0]]
