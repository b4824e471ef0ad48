"""Attacks as plugins: some clients send what harms the model; see `attacks` for the formulas.

Attacks on weights act on the parameters of the model, as differences to what the client received.
Buffers and all other uploads stay as an honest client would send them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedbench import (
    ClientContext,
    ClientResult,
    ConfigError,
    Dataset,
    Examples,
    Payload,
    ServerContext,
    ServerState,
    Value,
    hookimpl,
)
from fedbench.random import Streams

from .attacks import alie, alie_factor, flip_labels, flip_pair, ipm, replace_model, stamp
from .malicious import (
    COLLUDING,
    Attack,
    WeightsAttack,
    malicious,
    parameters,
    update_of,
    with_weights,
)
from .robust import moved, received, update
from .vectors import flat, restored


@dataclass(frozen=True, eq=False)
class LabelFlip(Attack):
    """Let malicious clients train on wrong labels.

    Source: Tolpegin, Truex, Gursoy, Liu: Data Poisoning Attacks Against Federated Learning Systems,
    ESORICS 2020, for pairs of classes. The paper was not re-read.
    """

    name = "label_flip"

    form: Annotated[
        Literal["reverse", "next", "pair"],
        Field(
            description="reverse: C - 1 - y, so a middle class keeps its label; next: (y + 1) mod "
            "C; pair: source becomes target"
        ),
    ] = "reverse"
    source: Annotated[int, Field(ge=0, description="with pair, the class that is relabelled")] = 0
    target: Annotated[int, Field(ge=0, description="with pair, its new label")] = 1

    @hookimpl
    def client_data(
        self, data: Examples, client: int, num_clients: int, num_classes: int, streams: Streams
    ) -> Examples:
        if client not in malicious(streams, num_clients, self.clients):
            return data
        if self.form == "pair":
            _check_class("label_flip.source", self.source, num_classes)
            _check_class("label_flip.target", self.target, num_classes)
            return replace(data, labels=flip_pair(data.labels, self.source, self.target))
        return replace(data, labels=flip_labels(data.labels, num_classes, self.form))


@dataclass(frozen=True, eq=False)
class SignFlip(WeightsAttack):
    """Let malicious clients send their update with the opposite sign.

    Source: Li, Xu, Chen, Giannakis, Ling: RSA: Byzantine-Robust Stochastic Aggregation Methods,
    AAAI 2019. The paper was not re-read.
    """

    name = "sign_flip"

    scale: Annotated[
        float, Field(ge=0, description="how many times as long the reversed update is")
    ] = 1.0

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        if not self.attacks(ctx):
            return uploads
        return with_weights(uploads, replace_model(*update_of(ctx, uploads), -self.scale))


@dataclass(frozen=True, eq=False)
class Gaussian(WeightsAttack):
    """Let malicious clients send Gaussian noise as their update.

    Source: Blanchard et al., Krum, NeurIPS 2017, with a standard deviation of 200, as remembered;
    by default that of the client's own update, as in Ditto's released code (Li et al., ICML 2021).
    """

    name = "gaussian"

    sigma: Annotated[
        float | None,
        Field(
            ge=0,
            description="its standard deviation; by default that of the client's own update",
        ),
    ] = None

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        if not self.attacks(ctx):
            return uploads
        base, trained = update_of(ctx, uploads)
        own = flat(update(trained, base))
        sigma = float(own.double().std(correction=0)) if self.sigma is None else self.sigma
        noise = sigma * torch.randn(own.shape, generator=ctx.rng("gaussian"), dtype=own.dtype)
        return with_weights(uploads, moved(base, restored(noise, trained)))


@dataclass(frozen=True, eq=False)
class _Colluding(WeightsAttack):
    """What attacks by clients that see each other share.

    Memory: all updates of a round at once, K models.
    """

    roles: ClassVar[tuple[str, ...]] = (*WeightsAttack.roles, COLLUDING)

    @hookimpl
    def receive_uploads(
        self, ctx: ServerContext, state: ServerState, results: Iterator[ClientResult]
    ) -> Iterator[ClientResult]:
        theirs = malicious(ctx.streams, ctx.num_clients, self.clients)
        if not set(theirs) & set(ctx.cohort):
            yield from results
            return
        arrived = list(results)
        points = {
            r.client: flat(update(parameters(ctx.model, r.uploads.weights()), received(state, r)))
            for r in arrived
        }
        bad = [point for client, point in points.items() if client in theirs]
        good = [point for client, point in points.items() if client not in theirs]
        sent = self.sent(bad, good) if bad else None
        for result in arrived:
            if sent is None or result.client not in theirs:
                yield result
                continue
            own = parameters(ctx.model, result.uploads.weights())
            changed = moved(received(state, result), restored(sent, own))
            yield result.with_uploads(with_weights(result.uploads, changed))

    def sent(self, bad: list[Tensor], good: list[Tensor]) -> Tensor | None:
        """Return the update (n,) that every malicious client sends; ``None`` for its own.

        Args:
            bad: what the malicious clients of the round would send if they were honest, each (n,).
            good: what the others send.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Alie(_Colluding):
    """Let malicious clients send the mean update, moved by a little of its standard deviation.

    Source: Baruch, Baruch, Goldberg: A Little Is Enough, NeurIPS 2019; see `attacks`.

    A single malicious client that knows only itself has no standard deviation: it sends its own
    update.
    """

    name = "alie"

    factor: Annotated[
        float | None,
        Field(
            ge=0,
            description="how many standard deviations; by default the most that should go "
            "unnoticed among the round's clients, see `alie_factor`; the released code uses 1.5",
        ),
    ] = None
    knows: Annotated[
        Literal["malicious", "honest"],
        Field(
            description="whose updates give mean and standard deviation: the malicious clients' "
            "own, as in the paper, or the honest clients', unbiased, as in other code"
        ),
    ] = "malicious"

    def sent(self, bad: list[Tensor], good: list[Tensor]) -> Tensor | None:
        """See `alie`."""
        factor = self.factor
        if factor is None:
            factor = alie_factor(len(bad) + len(good), len(bad))
        known = good if self.knows == "honest" else bad
        return alie(torch.stack(known), factor, self.knows == "honest") if known else None


@dataclass(frozen=True, eq=False)
class Ipm(_Colluding):
    """Let malicious clients send the mean of the honest updates, reversed and scaled.

    Source: Xie, Koyejo, Gupta: Fall of Empires, UAI 2019; see `attacks`.
    """

    name = "ipm"

    epsilon: Annotated[
        float,
        Field(
            ge=0,
            description="the scale: small values hide; above the ratio of honest to malicious "
            "clients, the plain mean points the wrong way",
        ),
    ] = 0.5

    def sent(self, bad: list[Tensor], good: list[Tensor]) -> Tensor | None:
        """See `ipm`."""
        return ipm(torch.stack(good), self.epsilon) if good else None


@dataclass(frozen=True, eq=False)
class Backdoor(WeightsAttack):
    """Let malicious clients teach the model to see a stamped square as the target class.

    They stamp a share of their images and label them as the target, and send their update scaled
    up, so that the mean becomes their model (model replacement). The extra test set ``backdoor``
    holds every test image that is not of the target class, stamped and labelled as the target: the
    accuracy on it is the attack's success rate. It enters no mean.

    Sources: Gu et al., BadNets, 2017; Bagdasaryan et al., AISTATS 2020; see `attacks`.
    """

    name = "backdoor"

    target: Annotated[int, Field(ge=0, description="the class that stamped images shall get")] = 0
    share: Annotated[
        float, Field(gt=0, le=1, description="share of a malicious client's images to stamp")
    ] = 0.3
    size: Annotated[int, Field(ge=1, description="the square's side in pixels")] = 3
    value: Annotated[int, Field(ge=0, le=255, description="what it is filled with")] = 255
    factor: Annotated[
        float | None,
        Field(
            ge=0,
            description="how many times as long the update is; by default the number of clients "
            "divided by the number of malicious ones; 1 sends it as it is",
        ),
    ] = None

    @hookimpl
    def prepare_data(self, data: Dataset) -> Dataset:
        _check_class("backdoor.target", self.target, len(data.classes))
        _check_images(data.test.inputs)
        others = data.test[data.test.labels != self.target]
        if not len(others):
            raise ConfigError("backdoor: every test image is of the target class already")
        stamped = replace(
            others,
            inputs=stamp(others.inputs, self.size, self.value),
            labels=torch.full_like(others.labels, self.target),
        )
        return replace(data, extra={**data.extra, self.name: stamped})

    @hookimpl
    def client_data(
        self,
        data: Examples,
        client: int,
        num_clients: int,
        rng: np.random.Generator,
        streams: Streams,
    ) -> Examples:
        if client not in malicious(streams, num_clients, self.clients):
            return data
        number = max(1, round(self.share * len(data)))
        chosen = torch.from_numpy(rng.permutation(len(data))[:number])
        inputs, labels = data.inputs.clone(), data.labels.clone()
        inputs[chosen] = stamp(inputs[chosen], self.size, self.value)
        labels[chosen] = self.target
        return replace(data, inputs=inputs, labels=labels)

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        theirs = malicious(ctx.streams, ctx.num_clients, self.clients)
        if ctx.client not in theirs:
            return uploads
        factor = ctx.num_clients / len(theirs) if self.factor is None else self.factor
        return with_weights(uploads, replace_model(*update_of(ctx, uploads), factor))


def _check_class(option: str, number: int, num_classes: int) -> None:
    if number >= num_classes:
        raise ConfigError(
            f"{option}: there is no class {number}; classes are from 0 to {num_classes - 1}"
        )


def _check_images(inputs: Tensor) -> None:
    if inputs.dtype != torch.uint8 or inputs.ndim != 4:
        kind = str(inputs.dtype).removeprefix("torch.")
        raise ConfigError(
            "backdoor: it stamps images of type uint8, (channels, height, width), and the data are "
            f"{kind} of shape {tuple(inputs.shape[1:])}"
        )
