"""Each client's own view: which of its examples are held out of training, and what it is tested on.

Pure functions of labels, domains and a random generator. Core calls them once, right after the
partition, with streams of their own, so that holding data out never changes another random number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .config.model import Clients
from .errors import ConfigError
from .random import Streams
from .types import Dataset, Examples

SPLITS: tuple[Literal["test", "validation"], ...] = ("test", "validation")
"""The parts that can be held out, in the order in which they are."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What clients hold out.

    Args:
        train: client -> (n_k,) int64 into ``data.train``, what it trains on.
        held: split -> client -> (m_k,) int64, into ``data.train``, or into ``data.test`` where
            `matched`; empty for a client that is too small.
        matched: whether the clients' test data comes from the test set.
    """

    train: Sequence[Tensor]
    held: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    matched: bool = False

    def too_small(self, split: str) -> list[int]:
        """Return the ids of the clients without an example in a split that others have."""
        return [c for c, part in enumerate(self.held.get(split, ())) if not len(part)]

    def clients(self, split: str) -> list[int]:
        """Return the ids of the clients that hold out data for a split."""
        return [c for c, part in enumerate(self.held.get(split, ())) if len(part)]

    def scored(
        self, data: Dataset, split: str, domain: int = 0, client: int | None = None
    ) -> tuple[Examples, Tensor]:
        """Return data that is scored: examples, and which of them (n,) int64, in order.

        Args:
            data: the data set.
            split: ``test``, ``validation`` or ``extra``.
            domain: its index, or the place of the extra test set; not used with a client.
            client: instead of the whole domain, what this client holds out.
        """
        if client is not None:
            from_test = split == "test" and self.matched
            return data.test if from_test else data.train, self.held[split][client]
        if split == "extra":
            examples = [*data.extra.values()][domain]
            return examples, torch.arange(len(examples))
        if split == "test":
            return data.test, (data.test.domains == domain).nonzero().flatten()
        everyone = torch.cat([torch.empty(0).long(), *self.held.get(split, ())])
        return data.train, everyone[data.train.domains[everyone] == domain]


def shares(counts: Sequence[int], total: int) -> list[int]:
    """Divide ``total`` over groups in proportion to ``counts`` (largest remainder).

    No group gets more than it has; ties go to the first group. ``total`` is at most the sum.
    """
    whole = sum(counts)
    if not whole:
        return [0] * len(counts)
    exact = [count * total / whole for count in counts]
    given = [int(value) for value in exact]
    order = sorted(range(len(counts)), key=lambda i: (given[i] - exact[i], i))
    for i in order[: total - sum(given)]:
        given[i] += 1
    return given


def how_many(share: float, n: int) -> int:
    """Return how many of ``n`` examples a share is: the nearest number, but at least one stays."""
    return min(int(share * n + 0.5), n - 1)


def hold_out(labels: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Split a client's examples, stratified by class as far as whole examples allow.

    Args:
        labels: (n,) int64, the classes of its examples.
        share: of the examples to hold out, in [0, 1), see `how_many`.
        rng: the stream that chooses them.

    Returns:
        positions that stay and positions that are held out, both ascending.
    """
    total = how_many(share, len(labels))
    classes = labels.unique().tolist()
    groups = [(labels == c).nonzero().flatten().numpy() for c in classes]
    counts = shares([len(group) for group in groups], total)
    chosen = [rng.permutation(group)[:k] for group, k in zip(groups, counts, strict=True)]
    held = torch.from_numpy(np.sort(np.concatenate(chosen)))
    stays = torch.ones(len(labels), dtype=torch.bool)
    stays[held] = False
    return stays.nonzero().flatten(), held


def matched(
    labels: tuple[Tensor, Tensor],
    domains: tuple[Tensor, Tensor],
    share: float,
    rng: np.random.Generator,
) -> Tensor:
    """Draw test examples with the class and domain shares of one client.

    Args:
        labels: of the client's examples (n,), and of the test set (N,).
        domains: of the client's examples (n,), and of the test set (N,).
        share: how many to draw, as a share of n; rounded, fewer where the test set has fewer.
        rng: the stream that chooses them.

    Returns:
        ascending positions in the test set, without repetition.
    """
    own = torch.stack([labels[0], domains[0]], 1)
    kinds, counts = own.unique(dim=0, return_counts=True)
    wanted = shares(counts.tolist(), int(share * len(own) + 0.5))
    chosen = []
    for (label, domain), k in zip(kinds.tolist(), wanted, strict=True):
        there = ((labels[1] == label) & (domains[1] == domain)).nonzero().flatten().numpy()
        chosen.append(rng.permutation(there)[:k])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def hold_out_all(
    data: Dataset, parts: Sequence[Tensor], rule: Clients, streams: Streams
) -> HeldOut:
    """Return what each client holds out of its part.

    Args:
        data: the prepared data.
        parts: client -> (n_k,) int64 into ``data.train``.
        rule: the shares.
        streams: the run's random streams.

    Raises:
        ConfigError: when every client is too small for a share that is asked for.
    """
    train, held = list(parts), dict[str, Sequence[Tensor]]()
    from_test = rule.test_from == "matched"
    for split in SPLITS:
        share = getattr(rule, split)
        if not share:
            continue
        found = []
        for client, part in enumerate(train):
            rng = streams.numpy(f"clients/{split}", client=client)
            labels, domains = data.train.labels[part], data.train.domains[part]
            if split == "test" and from_test:
                pairs = (labels, data.test.labels), (domains, data.test.domains)
                found.append(matched(*pairs, share, rng))
                continue
            stays, out = hold_out(labels, share, rng)
            train[client] = part[stays]
            found.append(part[out])
        if not any(map(len, found)):
            raise ConfigError(
                f"clients.{split}: {share:g} of a client's examples is less than one for every "
                "client; use a larger share, or fewer clients"
            )
        held[split] = found
    return HeldOut(train, held, from_test)
