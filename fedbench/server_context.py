"""The run as the server's hooks see it: what they get as ``ctx``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .anchors import class_anchors
from .random import Streams
from .types import Payload, PerClass


@dataclass(frozen=True, eq=False)
class ServerContext:
    """The run as the server's hooks see it.

    Args:
        round: the current round, from 1; 0 in ``init_server``.
        rounds: how many rounds the run has.
        num_classes: C.
        client_sizes: how many training examples each client holds, by client id.
        streams: the run's random streams.
        model: the run's model, for its structure; its weights are those of any turn.
        cohort: the ids of the clients selected for this round, ascending, also those that fail;
            empty before ``select_clients`` and outside a round. Once the round's results are there,
            under every schedule, those whose turns ended in it.
        scratch: values that hooks share within this round; discarded afterwards.
        now: virtual seconds at the start of the round; 0 without a clock.
        sent: what the clients that start in this round receive, decoded; empty before.
        classes, domains: the names of the data set's classes and domains.
        anchor_keys: where plugins broadcast class anchors.
    """

    round: int
    rounds: int
    num_classes: int
    client_sizes: tuple[int, ...]
    streams: Streams
    model: nn.Module
    cohort: tuple[int, ...] = ()
    scratch: dict[str, Any] = field(default_factory=dict)
    now: float = 0.0
    sent: Payload = field(default_factory=lambda: Payload({}, "the broadcast"))
    classes: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    anchor_keys: tuple[str, ...] = ()

    @property
    def num_clients(self) -> int:
        """How many clients there are, selected or not."""
        return len(self.client_sizes)

    @property
    def anchors(self) -> PerClass | None:
        """The class anchors in `sent`, see `class_anchors`; ``None`` without any."""
        return class_anchors(self.sent, self.anchor_keys)

    def rng(self, purpose: str) -> torch.Generator:
        """Return a fresh generator for this round; begin ``purpose`` with your plugin's name."""
        return self.streams.torch(purpose, self.round)
