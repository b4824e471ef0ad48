"""Partitions by Dirichlet draws: over the classes (`dirichlet`), over the sizes (`quantity`).

A rule that repeats a draw until every client has enough examples stops after `DRAWS` random
numbers and says what would work instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor

from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.types import Dataset

from .partitions import Clients, Ints, MinSize, by_label, check_sizes, evenly, parts_of

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

Alpha = Annotated[
    float, Field(ge=1e-6, description="concentration; the smaller, the more clients differ")
]

DRAWS = 40_000_000
"""Random numbers that a rule may draw before it gives up; this takes a few seconds."""

BLOCK = 1_000_000
"""Random numbers drawn at a time, to bound memory."""

GROUP = 10
"""Number of clients that the published form draws for together."""


def dirichlet_rows(
    alpha: float, shape: tuple[int, ...], rng: np.random.Generator, among: Bools | None = None
) -> Floats:
    """Draw Dir(alpha, ..., alpha) along the last axis of ``shape``.

    The draw uses logarithms of gamma variates, ``Gamma(a) = Gamma(a + 1) U^(1/a)``, so that a
    small ``alpha`` does not end in 0/0.

    Args:
        alpha: the concentration, at least 1e-6.
        shape: (..., k), k entries that sum to 1.
        rng: the stream to draw from.
        among: (..., k) which entries take part, at least one in each row; the others are 0.
    """
    logs = np.log(rng.standard_gamma(alpha + 1, shape)) + np.log1p(-rng.random(shape)) / alpha
    if among is not None:
        logs = np.where(among, logs, -np.inf)
    rows = np.exp(logs - logs.max(axis=-1, keepdims=True))
    shares: Floats = rows / rows.sum(axis=-1, keepdims=True)
    return shares


def cut(totals: Ints, shares: Floats, rng: np.random.Generator) -> Ints:
    """Cut ``totals`` (...) into whole parts (..., k) in proportion to ``shares`` (..., k).

    Each part is its share rounded up or down, and right on average; always rounding the running
    sum down would leave too little for the first of many clients. A share of 0 gets nothing.
    """
    ends = np.cumsum(shares, axis=-1)
    ends *= (totals / ends[..., -1])[..., None]
    ends += rng.random(totals.shape)[..., None]
    whole = np.minimum(np.floor(ends).astype(np.int64), totals[..., None])
    return np.diff(whole, axis=-1, prepend=0)


def quantity(
    n: int, clients: int, alpha: float, min_size: int, rng: np.random.Generator
) -> list[Tensor]:
    """Give each client ``min_size`` of ``n`` random examples; divide the rest by Dir(alpha)."""
    rest = np.asarray(n - clients * min_size)
    sizes = min_size + cut(rest, dirichlet_rows(alpha, (clients,), rng), rng)
    return parts_of(rng.permutation(np.arange(clients).repeat(sizes)), clients)


@dataclass(frozen=True, eq=False)
class Quantity:
    """Draw clients' sizes from Dir(alpha), with the same classes on all of them (quantity skew).

    Sizes are ``N q``, ``q ~ Dir(alpha)`` (Li et al., ICDE 2022). Their code repeats the draw until
    the smallest client is large enough, which never ends for many clients; here every client has
    ``min_size`` examples and the rest is divided by ``q``.
    """

    clients: Clients = 10
    alpha: Alpha = 0.5
    min_size: MinSize = 10

    @hookimpl
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        n = len(data.train)
        check_sizes("quantity", n, self.clients, self.min_size)
        return quantity(n, self.clients, self.alpha, self.min_size, rng)


def capped_draw(counts: Ints, clients: int, alpha: float, rng: np.random.Generator) -> Ints:
    """Divide class after class by Dir(alpha) among the clients that are below their even share.

    Args:
        counts: (C,) examples of each class, none of them 0.
        clients: number of clients.
        alpha: the concentration.
        rng: the stream to draw from.

    Returns:
        (C, clients) the number of examples of each class that each client draws.
    """
    sizes, total = np.zeros(clients, np.int64), counts.sum()
    parts = np.zeros((len(counts), clients), np.int64)
    for part, n in zip(parts, counts, strict=True):
        below = sizes * clients < total
        part[:] = cut(n, dirichlet_rows(alpha, sizes.shape, rng, below), rng)
        sizes += part
    return parts


def dirichlet(
    labels: Ints,
    clients: int,
    alpha: float,
    min_size: int,
    rng: np.random.Generator,
    *,
    capped: bool = False,
) -> list[Tensor]:
    """Divide each class among the clients by Dir(alpha); repeat until each has ``min_size``.

    Args:
        labels: (N,) class of each example.
        clients: number of clients.
        alpha: the concentration.
        min_size: least number of examples per client.
        rng: the stream to draw from.
        capped: whether a client that has its even share gets nothing of the classes that follow.

    Returns:
        the indices of each client's examples, ascending.

    Raises:
        ConfigError: when no draw gave every client enough; it names the largest ``min_size`` that
            one of these draws gave.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    blocks = np.array_split(counts, min(len(counts), -(-len(counts) * clients // BLOCK)))
    tries = int(np.clip(DRAWS // (len(counts) * clients), 3, 10_000))
    best = 0
    for _ in range(tries):
        if capped:
            sizes = [capped_draw(counts, clients, alpha, rng)]
        else:
            sizes = [cut(n, dirichlet_rows(alpha, (len(n), clients), rng), rng) for n in blocks]
        smallest = int(sum(block.sum(axis=0) for block in sizes).min())
        if smallest >= min_size:
            break
        best = max(best, smallest)
    else:
        ways = [f"min_size: {best}"] if best else []
        ways += ["fewer clients", "a larger alpha", "form: published"]
        raise ConfigError(
            f"dirichlet.min_size: {min_size:,} is out of reach with alpha {alpha:g}: in {tries:,} "
            f"draws the smallest of {clients:,} clients had at most {best:,} examples; try "
            f"{', '.join(ways[:-1])} or {ways[-1]}"
        )
    owner = np.empty_like(labels)
    ids = np.arange(clients)
    owner[by_label(labels, rng)] = np.concatenate(
        [np.tile(ids, len(block)).repeat(block.ravel()) for block in sizes]
    )
    return parts_of(owner, clients)


def dirichlet_published(
    labels: Ints, clients: int, alpha: float, rng: np.random.Generator
) -> list[Tensor]:
    """Partition as the released FedHPro code does; sizes differ by at most one example.

    1. The shuffled examples are cut into one stretch for every ten clients.
    2. In each stretch, class by class, Dir(alpha) divides the class among the clients that are
       below their even share. This is repeated until each has half its even share.
    3. The examples that the clients drew are put in a row, stretch by stretch and client by client,
       and cut again into equal blocks, which are the final clients. A block may hold examples that
       two neighbours drew.

    The released code draws for all clients and then sets the full ones to zero, which is the same
    distribution; it refuses fewer than ten clients and may end in 0/0, and this code does neither.

    Args:
        labels: (N,) class of each example, N at least ``clients``.
        clients: number of clients.
        alpha: the concentration.
        rng: the stream to draw from.

    Returns:
        the indices of each client's examples, ascending.

    Raises:
        ConfigError: when step 2 finds no such draw.
    """
    n = len(labels)
    groups = -(-clients // GROUP)
    shuffled = rng.permutation(n)
    starts = np.arange(groups) * GROUP * n // clients
    group = np.arange(groups).repeat(np.diff(starts, append=n))
    classes = int(labels.max()) + 1
    kind = group * classes + labels[shuffled]  # one number per stretch and class
    counts = np.bincount(kind, minlength=groups * classes).reshape(groups, classes)
    members = np.full(groups, GROUP)
    members[-1] = clients - GROUP * (groups - 1)
    shares = capped_shares(counts, members, alpha, rng)

    order = shuffled[np.argsort(kind, kind="stable")]
    drawn_by = np.tile(np.arange(GROUP), groups * classes).repeat(shares.ravel())
    drawn_by += GROUP * group
    row = order[np.argsort(drawn_by, kind="stable")]
    owner = np.empty_like(labels)
    owner[row] = evenly(n, clients)
    return parts_of(owner, clients)


def capped_shares(counts: Ints, members: Ints, alpha: float, rng: np.random.Generator) -> Ints:
    """Draw step 2 of `dirichlet_published` for all stretches at once.

    Args:
        counts: (G, C) examples of each class in each stretch.
        members: (G,) clients of each stretch, at most `GROUP`.
        alpha: the concentration.
        rng: the stream to draw from.

    Returns:
        (G, C, GROUP) the number of examples of each class that each client draws.

    Raises:
        ConfigError: when `DRAWS` random numbers gave some stretch no valid draw.
    """
    groups, classes = counts.shape
    result = np.zeros((groups, classes, GROUP), np.int64)
    pending = np.arange(groups)
    limit = max(1, BLOCK // (classes * GROUP))
    budget = max(DRAWS, 3 * result.size)
    while len(pending):
        tried = pending[:limit]
        # The last few stretches are tried many times in one step: it costs NumPy much the same.
        tried = tried.repeat(max(1, min(limit, 256) // len(tried)))
        budget -= len(tried) * classes * GROUP
        if budget < 0:
            raise ConfigError(
                f"dirichlet.alpha: no draw with alpha {alpha:g} gave each of "
                f"{members[pending[0]]} clients half its even share; try a larger alpha or "
                "form: plain"
            )
        inside = np.arange(GROUP) < members[tried, None]
        totals, even = counts[tried].sum(axis=1), members[tried, None]
        sizes = np.zeros((len(tried), GROUP), np.int64)
        shares = np.zeros((classes, len(tried), GROUP), np.int64)
        for label, n in enumerate(np.ascontiguousarray(counts[tried].T)):
            below = inside & (sizes * even < totals[:, None])
            # All are full only when no example is left; then it does not matter who gets none.
            below |= inside & ~below.any(axis=1, keepdims=True)
            shares[label] = cut(n, dirichlet_rows(alpha, sizes.shape, rng, below), rng)
            sizes += shares[label]
        valid = (~inside | (sizes >= totals[:, None] // (2 * even))).all(axis=1)
        found, first = np.unique(tried[valid], return_index=True)
        result[found] = shares[:, valid][:, first].swapaxes(0, 1)
        pending = np.setdiff1d(pending, found)
    return result


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """Divide each class among the clients in proportions drawn from Dir(alpha) (label skew).

    ``plain`` draws class by class and starts again until every client has ``min_size`` examples
    (Hsu et al., 2019; the minimum as in Li et al., ICDE 2022). ``capped`` gives a client that has
    its even share nothing of the classes that follow, as in the code of NIID-Bench (Li et al., ICDE
    2022): clients differ less in size. ``published`` is the draw of FedHPro's
    released code (Wang et al., ICML 2026), with clients of equal size; see `dirichlet_published`.
    """

    clients: Clients = 10
    alpha: Alpha = 0.5
    min_size: MinSize = 10
    form: Annotated[
        Literal["plain", "capped", "published"],
        Field(
            description="plain: sizes as drawn; capped: a client with its even share gets no more,"
            " as in NIID-Bench's code; published: equal sizes, as in FedHPro's code"
        ),
    ] = "plain"

    @hookimpl
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        labels = data.train.labels.numpy()
        check_sizes("dirichlet", len(labels), self.clients, self.min_size)
        if self.form == "published":
            return dirichlet_published(labels, self.clients, self.alpha, rng)
        capped = self.form == "capped"
        return dirichlet(labels, self.clients, self.alpha, self.min_size, rng, capped=capped)
