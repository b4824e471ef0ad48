"""Client-level differential privacy as a plugin: clipped uploads, their noised mean, its epsilon.

DP-FedAvg: McMahan, Ramage, Talwar, Zhang: Learning Differentially Private Recurrent Language
Models, ICLR 2018; see `dp` for the accounting. Here any upload can be protected, not only weights.

For every protected key, the server learns one value per round: the sum of the clients' clipped
values plus Gaussian noise, divided by the number of selected clients. Each client's upload is
replaced by that mean, so whatever plugins do with uploads afterwards is computed from noised means
alone and costs no privacy. Weights are protected as the difference to what the server had sent.

What the claim does not cover: the numbers that a simulation reports about clients (losses, scores),
how many examples each client holds, and hyperparameters that were chosen by looking at results. The
noise comes from the run's seed; whoever knows the seed can subtract it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from fedbench import (
    ClientContext,
    ClientResult,
    ConfigError,
    Payload,
    PerClass,
    RoundResult,
    ServerContext,
    ServerState,
    ServerUpdate,
    Value,
    Weights,
    hookimpl,
)
from fedbench.codec import EXACT
from fedbench.errors import did_you_mean

from .clipping import clip
from .dp import epsilon
from .malicious import COLLUDING
from .online import LEFT_OUT
from .robust import ROLE as ROBUST
from .robust import received
from .schedules import OVERLAPPING

COHORT = "dp.cohort"
Bound = Annotated[float, Field(gt=0)]
LESS_NOISE = "the sum would have less noise than epsilon is for; use dp.noise=server"
"""Why a codec cannot encode what clients have added noise to."""
WEIGHED = "it weighs clients by losses that they send, and both leak outside the mechanism"


def all_classes(rows: PerClass, num_classes: int) -> PerClass:
    """Return one row per class, zeros for those that ``rows`` lacks, and counts of 1.

    Labels and counts would tell which classes a client holds, and how many examples of each.

    Raises:
        ConfigError: for a class with several rows.
    """
    if len(rows.labels.unique()) < len(rows):
        raise ConfigError("several rows for one class; only one can be protected")
    values = rows.values.new_zeros((num_classes, *rows.values.shape[1:]))
    labels = torch.arange(num_classes)
    return PerClass(labels, values.index_copy(0, rows.labels, rows.values), torch.ones_like(labels))


def contents(value: Value, base: Weights | None) -> Weights:
    """Return what is clipped and summed of a value, by name; of weights the update from ``base``.

    Raises:
        ConfigError: for a value that cannot be protected.
    """
    if isinstance(value, PerClass):
        return {"values": value.values}
    parts = {"": value} if isinstance(value, Tensor) else value
    if not isinstance(parts, Mapping):
        raise ConfigError("it is encoded already; put dp before the plugin that encodes it")
    wrong = [name for name, part in parts.items() if not part.is_floating_point()]
    if wrong:
        raise ConfigError(f"its part {wrong[0]!r} holds integers, to which no noise can be added")
    if base is None:
        return parts
    return {name: w.double() - base[name].double() for name, w in parts.items()}


def rebuilt(parts: Weights, like: Value, base: Weights | None) -> Value:
    """Return the value of which ``parts`` are the `contents`, with the types of ``like``."""
    if isinstance(like, PerClass):
        return PerClass(like.labels, parts["values"].to(like.values.dtype), like.counts)
    if isinstance(like, Tensor):
        return parts[""].to(like.dtype)
    assert isinstance(like, Mapping)
    whole = parts if base is None else {n: base[n].double() + part for n, part in parts.items()}
    return {name: w.to(like[name].dtype) for name, w in whole.items()}


def noised(parts: Weights, std: float, rng: Generator) -> Weights:
    """Return ``parts`` in float64 with Gaussian noise of standard deviation ``std`` on each number.

    Names are taken in order, so the noise does not depend on the order of a mapping.
    """
    return {
        name: parts[name].double()
        + std * torch.randn(parts[name].shape, generator=rng, dtype=torch.float64)
        for name in sorted(parts)
    }


@lru_cache(maxsize=64)
def _epsilon(z: float, rounds: int, delta: float, sampled: int, num_clients: int) -> float:
    return epsilon(z, rounds, delta, sampled, num_clients, "without_replacement")


@dataclass(frozen=True, eq=False)
class Dp:
    """Average clipped uploads with Gaussian noise, and report epsilon for the whole run.

    The mean is uniform and divides by the number of selected clients, also when some are lost. The
    metrics ``dp.*`` hold epsilon after all rounds of the run and every number that it depends on; a
    run directory has them with the assumptions in words in ``privacy.json``. Clients are sampled
    without replacement, as by `uniform`; neighbours differ by one client being replaced.

    Runs for which no epsilon could be claimed are refused: when a key travels that is not in
    ``bounds``, when buffers travel (batch-norm statistics), or when noise is missing because a
    client that should have added its part was lost.
    """

    requires: ClassVar[tuple[str, ...]] = ("uniform",)
    conflicts: ClassVar[Mapping[str, str]] = {
        "afl": WEIGHED,
        "term": WEIGHED,
        "qfedavg": WEIGHED,
        ROBUST: "its sensitivity is not that of the plain mean, for which the noise is scaled",
        COLLUDING: "clients that collude would see only the mean, and send it",
        "fedexp": "its step needs each client's own update, and only the noisy mean is known",
        "ccvr": "its statistics travel in the last round only, and every round is protected alike",
        OVERLAPPING: "its accounting is for rounds that are each a sample of all clients",
        "fedplvm": "clients send several prototypes of a class, and only one can be protected",
    }

    bounds: Annotated[
        Mapping[str, Bound],
        Field(min_length=1, description="upload key -> the largest norm of one client's value, S"),
    ] = field(default_factory=lambda: {"weights": 1.0})
    noise_multiplier: Annotated[
        float,
        Field(
            ge=0,
            description="z: the standard deviation of the noise on a sum, divided by S. With "
            "several keys each gets z times the root of their number, so that z holds for all "
            "together; 0 only clips, and no epsilon is claimed",
        ),
    ] = 1.0
    delta: Annotated[
        float, Field(gt=0, lt=1, description="delta, to be below 1 / the number of clients")
    ] = 1e-5
    noise: Annotated[
        Literal["server", "clients"],
        Field(
            description="who adds it: the server to the sum, or every client its part, which needs "
            "a secure sum: epsilon is that of the sum"
        ),
    ] = "server"

    @hookimpl
    def run_start(self, ctx: ServerContext) -> None:
        # Refuses a run without the accountant before it has trained for hours.
        epsilon(self.noise_multiplier, 1, self.delta, 1, 1, "without_replacement")

    @hookimpl
    def broadcast(self, ctx: ServerContext) -> Mapping[str, Value]:
        if self.noise == "server" or not ctx.cohort:
            return {}
        return {COHORT: torch.tensor(len(ctx.cohort))}

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        changed: dict[str, Value] = dict(uploads)
        for key in sorted(uploads.keys() & self.bounds.keys()):
            value = changed[key]
            if isinstance(value, PerClass):
                with _naming(key):
                    value = changed[key] = all_classes(value, ctx.num_classes)
            if self.noise == "clients":
                ctx.scratch.setdefault(EXACT, {})[key] = LESS_NOISE
                base = ctx.sent.weights() if key == "weights" else None
                changed[key] = self._own_part(ctx, key, value, base)
        return changed

    def _own_part(self, ctx: ClientContext, key: str, value: Value, base: Weights | None) -> Value:
        """Return a client's clipped value with its part of the noise."""
        if base is not None:
            base = {name: w.cpu() for name, w in base.items()}
        with _naming(key):
            parts = clip(contents(value, base), self.bounds[key])
        share = math.sqrt(int(ctx.payload.tensor(COHORT)))
        mine = noised(parts, self._std(key) / share, ctx.rng(f"dp/{key}"))
        return rebuilt(mine, value, base)

    @hookimpl
    def receive_uploads(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Iterator[ClientResult]:
        sums: dict[str, Weights] = {}
        like: dict[str, tuple[Value, Weights | None]] = {}
        held: list[ClientResult] = []
        for result in results:
            self._check(ctx, result)
            for key, value in result.uploads.items():
                base = received(state, result) if key == "weights" else None
                with _naming(key):
                    parts = contents(value, base)
                if self.noise == "server":
                    parts = clip(parts, self.bounds[key])
                have = sums.get(key)
                sums[key] = {n: p.double() + (have[n] if have else 0) for n, p in parts.items()}
                like.setdefault(key, (value, base))
            held.append(result.with_uploads({}))
        if self.noise == "clients" and len(held) < len(ctx.cohort):
            raise ConfigError(
                _no_claim("clients were lost, and with them their parts of the noise")
            )
        means = {
            key: rebuilt(self._mean(ctx, key, total), *like[key]) for key, total in sums.items()
        }
        for result in held:
            yield result.with_uploads(means)

    def _mean(self, ctx: ServerContext, key: str, total: Weights) -> Weights:
        if self.noise == "server":
            total = noised(total, self._std(key), ctx.rng(f"dp/{key}"))
        return {name: part / len(ctx.cohort) for name, part in total.items()}

    @hookimpl
    def aggregate(self, results: Iterator[ClientResult]) -> Weights:
        weights: Weights = {}
        for result in results:  # all the same: the mean
            weights = result.uploads.weights()
        return weights

    @hookimpl
    def server_update(self, ctx: ServerContext, state: ServerState) -> ServerUpdate:
        size = torch.tensor(len(ctx.cohort))
        same = torch.equal(state.entries.get(COHORT, size), size)
        if self.noise_multiplier and (LEFT_OUT in ctx.scratch or not same):
            raise ConfigError(_no_claim("the clients of a round are no uniform sample of all"))
        sampled, everyone = len(ctx.cohort), ctx.num_clients
        metrics = {
            "dp.noise_multiplier": self.noise_multiplier,
            "dp.rounds": float(ctx.rounds),
            "dp.cohort": float(sampled),
            "dp.clients": float(everyone),
            **{f"dp.bound.{key}": bound for key, bound in self.bounds.items()},
        }
        if self.noise_multiplier:
            chosen = self.noise_multiplier, ctx.rounds, self.delta, sampled, everyone
            metrics |= {"dp.epsilon": _epsilon(*chosen), "dp.delta": self.delta}
        return ServerUpdate(entries={COHORT: size}, metrics=metrics)

    @hookimpl
    def conclude(self, history: Sequence[RoundResult]) -> Sequence[str]:
        found = history[-1].metrics
        if "dp.epsilon" not in found:
            return ["dp: no epsilon is claimed: uploads were clipped and no noise was added"]
        bounds = ", ".join(f"{key} {bound:g}" for key, bound in self.bounds.items())
        done, planned = len(history), int(found["dp.rounds"])
        # Composition over all rounds that were planned also bounds a run that ended before.
        rounds = f"{planned} rounds" if done == planned else f"{done} of at most {planned} rounds"
        return [
            f"dp: every client has ({found['dp.epsilon']:.4g}, {self.delta:g})-differential "
            f"privacy after {rounds}. Noise multiplier "
            f"{self.noise_multiplier:g}, Gaussian noise added by the {self.noise}; clipped at "
            f"{bounds}; {found['dp.cohort']:g} of {found['dp.clients']:g} clients per round, drawn "
            "without replacement; neighbours differ by one client being replaced; RDP accountant "
            f"of dp-accounting {version('dp-accounting')}. This holds for the weights and all "
            "protected uploads, not for reported losses and scores, the clients' numbers of "
            "examples, or options tuned on results"
        ]

    def _std(self, key: str) -> float:
        """Return the standard deviation of the noise on a key's sum."""
        return self.noise_multiplier * math.sqrt(len(self.bounds)) * self.bounds[key]

    def _check(self, ctx: ServerContext, result: ClientResult) -> None:
        """Raise a `ConfigError` for an upload that the mechanism does not cover."""
        bare = sorted(set(result.uploads) - set(self.bounds))
        if bare:
            raise ConfigError(
                _no_claim(f"clients also send {bare[0]!r}, which is not clipped; give its bound")
            )
        missing = sorted(set(self.bounds) - set(result.uploads))
        if missing:
            raise ConfigError(
                f"dp.bounds: client {result.client} does not send {missing[0]!r}"
                f"{did_you_mean(missing[0], result.uploads)}"
            )
        known = {name for name, _ in ctx.model.named_parameters()}
        buffers = sorted(set(result.uploads.get("weights", {})) - known)
        if buffers:
            raise ConfigError(
                _no_claim(
                    f"clients send the buffer {buffers[0]!r}, and averaged batch-norm statistics "
                    "leak; use a model without batch norm, or keep it at the clients (fedbn)"
                )
            )


def _no_claim(why: str) -> str:
    return f"dp: no epsilon can be claimed: {why}"


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Let errors about a value say which upload it is."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_no_claim(f"upload {key!r}: {error}")) from error
