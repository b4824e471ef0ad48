"""Partitions: how the training examples are divided among clients.

A partition is computed as one array, the owner of each example. No rule can then give an example to
two clients or forget one (except ``domains``, which may use only part of the data). ``dirichlet``
and ``quantity`` have a module of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from fedbench.errors import ConfigError, did_you_mean
from fedbench.hookspecs import hookimpl
from fedbench.types import Dataset

Count = Annotated[int, Field(ge=0)]
Clients = Annotated[int, Field(ge=1, description="number of clients")]
MinSize = Annotated[int, Field(ge=1, description="least number of examples per client")]

Ints: TypeAlias = npt.NDArray[np.int64]


def parts_of(owner: Ints, clients: int) -> list[Tensor]:
    """Return the indices of each client's examples, ascending, from each example's owner (N,)."""
    order = torch.from_numpy(np.argsort(owner, kind="stable"))
    return list(order.split(np.bincount(owner, minlength=clients).tolist()))


def evenly(n: int, parts: int) -> Ints:
    """Return the block (n,) of each item in ``parts`` equal blocks; the first may be 1 longer."""
    sizes = np.full(parts, n // parts)
    sizes[: n % parts] += 1
    return np.arange(parts).repeat(sizes)


def by_label(labels: Ints, rng: np.random.Generator) -> Ints:
    """Return the indices that sort ``labels`` (N,), in random order within a label."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def check_sizes(plugin: str, examples: int, clients: int, min_size: int = 1) -> None:
    """Check that there are enough examples for every client.

    Raises:
        ConfigError: when there are not; it names the plugin and what would work.
    """
    if clients * min_size <= examples:
        return
    ways = [f"clients: {examples // min_size}"] if examples >= min_size else []
    if 1 <= examples // clients < min_size:
        ways.append(f"min_size: {examples // clients}")
    raise ConfigError(
        f"{plugin}.clients: {clients:,} clients with at least {min_size:,} each need "
        f"{clients * min_size:,} training examples; there are {examples:,}"
        + (f", enough for {' or '.join(ways)}" if ways else "")
    )


@dataclass(frozen=True, eq=False)
class Iid:
    """Divide the examples evenly at random: the same distribution on every client."""

    clients: Clients = 10

    @hookimpl
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        check_sizes("iid", len(data.train), self.clients)
        owner = rng.permutation(evenly(len(data.train), self.clients))
        return parts_of(owner, self.clients)


@dataclass(frozen=True, eq=False)
class Domains:
    """Give each client examples of one domain (domain shift); no example is given twice.

    A client gets ``examples``, or ``fraction`` of its domain; with neither, the clients of a domain
    share all of it evenly. Clients are numbered domain by domain. This is the protocol of FPL
    (Huang et al., CVPR 2023).
    """

    clients_per_domain: Annotated[
        Annotated[int, Field(ge=1)] | dict[str, Count],
        Field(description="clients per domain, or domain -> clients"),
    ] = 2
    examples: Annotated[
        Annotated[int, Field(ge=1)] | None, Field(description="examples per client")
    ] = None
    fraction: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None,
        Field(description="share of its domain that each client gets"),
    ] = None

    def __post_init__(self) -> None:
        if self.examples is not None and self.fraction is not None:
            raise ValueError("give examples or fraction, not both")

    @hookimpl
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        counts = self.clients_per_domain
        if isinstance(counts, int):
            counts = dict.fromkeys(data.domains, counts)
        for name in counts:
            if name not in data.domains:
                raise ConfigError(
                    f"domains.clients_per_domain: no domain {name!r}"
                    f"{did_you_mean(name, data.domains)}"
                )
        parts: list[Tensor] = []
        for number, domain in enumerate(data.domains):
            members = (data.train.domains == number).nonzero().flatten()
            shuffled = members[torch.from_numpy(rng.permutation(len(members)))]
            clients = counts.get(domain, 0)
            if clients and len(members):  # a domain may be left out of training
                size = self._size(domain, len(members), clients)
                parts += [shuffled[i * size : (i + 1) * size] for i in range(clients)]
        return parts

    def _size(self, domain: str, available: int, clients: int) -> int:
        size = self.examples or available // clients
        if self.fraction is not None:
            size = max(1, int(self.fraction * available))
        if size * clients > available or size == 0:
            raise ConfigError(
                f"domains: {domain} has {available} training examples, too few for {clients} "
                f"clients with {max(size, 1)} each"
            )
        return size


def shards(labels: Ints, clients: int, each: int, rng: np.random.Generator) -> list[Tensor]:
    """Sort by label, cut into ``clients * each`` equal shards, deal each client ``each``."""
    dealt = rng.permutation(np.arange(clients).repeat(each))
    owner = np.empty_like(labels)
    owner[by_label(labels, rng)] = dealt[evenly(len(labels), len(dealt))]
    return parts_of(owner, clients)


@dataclass(frozen=True, eq=False)
class Shards:
    """Sort by label, cut into equal shards, and deal each client a few of them at random.

    The pathological non-IID partition of McMahan et al. (AISTATS 2017): 100 clients, 200 shards of
    300 MNIST digits, two per client. Shard sizes differ by at most one.
    """

    clients: Clients = 10
    shards_per_client: Annotated[int, Field(ge=1, description="shards per client")] = 2

    @hookimpl
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        n, each = len(data.train), self.shards_per_client
        if self.clients * each > n:
            raise ConfigError(
                f"shards: {self.clients:,} clients with shards_per_client: {each} need "
                f"{self.clients * each:,} shards, and there are {n:,} training examples; at most "
                f"clients: {n // each} can have {each} each"
            )
        return shards(data.train.labels.numpy(), self.clients, each, rng)


def share_classes(labels: Ints, holders: Sequence[Ints], rng: np.random.Generator) -> Ints:
    """Divide each class evenly among the clients that hold it; return owners (N,).

    Args:
        labels: (N,) class of each example.
        holders: for each class, the clients that hold it; none for a class without examples.
        rng: the stream to draw from.
    """
    order, start = by_label(labels, rng), 0
    owner = np.empty_like(labels)
    for n, clients in zip(np.bincount(labels, minlength=len(holders)), holders, strict=True):
        if n:
            owner[order[start : start + n]] = rng.permutation(clients)[evenly(n, len(clients))]
        start += n
    return owner


def check_holders(plugin: str, data: Dataset, holders: Sequence[Ints], works: str) -> None:
    """Check that every class has an example for each client that holds it.

    Args:
        plugin: its name, for the error.
        data: the data set.
        holders: for each class, the clients that hold it.
        works: options that would work, for the error.

    Raises:
        ConfigError: when a class has too few; it names the plugin and the class.
    """
    counts = data.train.labels.bincount(minlength=len(data.classes)).tolist()
    for name, n, clients in zip(data.classes, counts, holders, strict=True):
        if n < len(clients):
            raise ConfigError(
                f"{plugin}: {len(clients):,} clients would hold class {name!r}, which has {n:,} "
                f"training examples; use {works}"
            )


def choose_classes(
    present: Ints, clients: int, k: int, rng: np.random.Generator
) -> list[list[int]]:
    """Choose ``k`` different classes for each client so that all are held equally often.

    The numbers of clients that hold a class differ by at most one, so every class is held if
    ``clients * k`` is at least the number of classes.

    Args:
        present: the classes to choose from, at least ``k``.
        clients: number of clients.
        k: classes per client.
        rng: the stream to draw from.

    Returns:
        the classes of each client.
    """
    held = np.zeros(len(present))
    chosen = []
    for _ in range(clients):
        # The least held classes first, ties broken at random.
        first = np.argpartition(held + rng.random(len(held)), k - 1)[:k]
        held[first] += 1
        chosen.append(present[first].tolist())
    return chosen


def published_classes(
    present: Ints, clients: int, k: int, rng: np.random.Generator
) -> list[list[int]]:
    """Choose ``k`` different classes for each client as the code of NIID-Bench does.

    Client ``i`` gets the ``i``-th of the classes, starting again after the last, and ``k - 1``
    others at random. So every class is held if there are as many clients as classes, but some by
    one client alone and others by many. As `choose_classes`, apart from the draw.
    """
    firsts = np.arange(clients) % len(present)
    others = [rng.choice(np.delete(present, i), k - 1, replace=False) for i in firsts]
    return [[int(present[i]), *more.tolist()] for i, more in zip(firsts, others, strict=True)]


@dataclass(frozen=True, eq=False)
class ClassesPerClient:
    """Give each client ``classes`` classes; divide each class evenly among its holders.

    The quantity-based label imbalance ``#C = k`` of Li et al. (ICDE 2022). With ``form: balanced``,
    the numbers of clients that hold a class differ by at most one from class to class; with
    ``published``, client ``i`` gets class ``i`` and random others, as in the authors' code
    (Xtra-Computing/NIID-Bench at commit 61b901ab), so that clients differ in size. To repeat a
    known draw, ``classes`` lists the classes of each client, counted from 0.
    """

    clients: Clients = 10
    classes: Annotated[
        Annotated[int, Field(ge=1)] | list[list[Count]],
        Field(description="classes per client, or which ones: [[0, 7], [1, 6], ...]"),
    ] = 2
    form: Annotated[
        Literal["balanced", "published"],
        Field(description="all classes held equally often, or the draw of NIID-Bench's code"),
    ] = "balanced"

    @hookimpl
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        labels = data.train.labels.numpy()
        present = np.unique(labels)
        if isinstance(self.classes, int):
            self._check(self.classes, len(present))
            choose = published_classes if self.form == "published" else choose_classes
            chosen = choose(present, self.clients, self.classes, rng)
            most = int(np.bincount(labels)[present].min()) * len(present) // self.classes
            works = f"clients: {most} at most"
        else:
            self._check_listed(self.classes, set(present.tolist()))
            chosen, works = self.classes, "another list"
        holders: list[list[int]] = [[] for _ in data.classes]
        for client, classes in enumerate(chosen):
            for label in classes:
                holders[label].append(client)
        arrays = [np.array(ids, dtype=np.int64) for ids in holders]
        check_holders("classes_per_client", data, arrays, works)
        return parts_of(share_classes(labels, arrays, rng), self.clients)

    def _check_listed(self, listed: list[list[int]], present: set[int]) -> None:
        here = "classes_per_client.classes"
        if len(listed) != self.clients:
            raise ConfigError(f"{here}: {len(listed)} lists; use clients: {len(listed)}")
        if self.form != "balanced":
            raise ConfigError(f"{here}: a list leaves nothing to draw; leave out form: {self.form}")
        for client, classes in enumerate(listed):
            if not classes or len(set(classes)) < len(classes):
                raise ConfigError(
                    f"{here}: client {client} needs one class or more, each once; not {classes}"
                )
        held = {label for classes in listed for label in classes}
        for what, wrong in (("no training example", held - present), ("no client", present - held)):
            if wrong:
                raise ConfigError(f"{here}: class {min(wrong)} has {what}")

    def _check(self, classes: int, present: int) -> None:
        if classes > present:
            raise ConfigError(
                f"classes_per_client.classes: {classes} is more than the {present} classes "
                "that have training examples"
            )
        if self.clients * classes < present:
            raise ConfigError(
                f"classes_per_client: {self.clients} clients with {classes} each hold only "
                f"{self.clients * classes} of {present} classes; use classes: "
                f"{-(-present // self.clients)} or clients: {-(-present // classes)}"
            )
        if self.form == "published" and self.clients < present:
            raise ConfigError(
                f"classes_per_client.form: with form: published, {self.clients} clients may leave "
                f"some of the {present} classes to nobody; use clients: {present} or form: balanced"
            )


@dataclass(frozen=True, eq=False)
class Biased:
    """Give some clients one class each and the others all; divide each class evenly.

    The clients with one class come first. They get the classes in random order, starting again when
    there are more such clients than classes. Clients with all classes are much larger.
    """

    one_class_clients: Annotated[
        int, Field(ge=0, description="clients with examples of one class")
    ] = 5
    all_class_clients: Annotated[
        int, Field(ge=1, description="clients with examples of every class")
    ] = 5

    @hookimpl
    def partition(self, data: Dataset, rng: np.random.Generator) -> Sequence[Tensor]:
        labels = data.train.labels.numpy()
        present = rng.permutation(np.unique(labels))
        ids = np.arange(self.one_class_clients + self.all_class_clients)
        classes = present[ids[: self.one_class_clients] % len(present)]
        everyone = ids[self.one_class_clients :]
        holders = [
            np.concatenate([np.flatnonzero(classes == label), everyone])
            if label in present
            else ids[:0]
            for label in range(len(data.classes))
        ]
        most = int(np.bincount(labels)[present].min()) - -(-len(classes) // len(present))
        works = f"all_class_clients: {most} at most" if most > 0 else "fewer one_class_clients"
        check_holders("biased", data, holders, works)
        return parts_of(share_classes(labels, holders, rng), len(ids))
