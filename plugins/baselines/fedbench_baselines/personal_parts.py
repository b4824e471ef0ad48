"""What personalised methods share: parts of the model, or whole models, that stay with the client.

`LeftOut` keeps entries of the weights, and all else that is sent for them, out of what travels, in
both directions. `Kept` is a part of
the model that every client trains for itself: it keeps its values from turn to turn and is scored
with them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fedbench import ClientContext, ConfigError, Payload, ServerContext, Value, Weights, hookimpl

KEY = "weights"
ROLE = "personal model"
WHY = "each has its own rule for the model that a client uses, and a run has one"


def is_head(name: str) -> bool:
    """Return whether a parameter or buffer belongs to the classifier."""
    return name.startswith("classifier.")


def is_body(name: str) -> bool:
    """Return whether a parameter or buffer belongs to the feature extractor."""
    return not is_head(name)


def head_keys(model: nn.Module) -> frozenset[str]:
    """Return the ``state_dict`` names of the classifier."""
    return frozenset(filter(is_head, model.state_dict()))


def own_model(ctx: ClientContext, key: str) -> nn.Module:
    """Return a copy of ``ctx.model`` with the weights that the client keeps under ``key``.

    In the client's first turn, they are the run's initial ones, whatever the round.
    """
    model = copy.deepcopy(ctx.model)
    kept = ctx.state.get(key, ctx.initial)
    assert isinstance(kept, Mapping)
    model.load_state_dict({**model.state_dict(), **kept})
    return model


def learning_rate(ctx: ClientContext, who: str) -> float:
    """Return SGD's learning rate in the pass under way, or in the last one.

    Raises:
        ConfigError: for a trainer that is not SGD, naming the plugin ``who``.
    """
    work = ctx.training
    if work.lr is None or work.momentum is None:
        raise ConfigError(
            f"plugin {who!r} needs the learning rate of SGD, and the trainer of this run is "
            "another one; use the plugin sgd"
        )
    return work.lr


def without(values: Payload, names: frozenset[str]) -> dict[str, Value]:
    """Return ``values`` with these entries left out of the weights, and of all tensors by name.

    So what other plugins send for each parameter, such as control variates, goes without them too.
    Tensors by name of which nothing is left are left out.
    """
    rest = {
        key: {name: w for name, w in value.items() if name not in names}
        if isinstance(value, Mapping)
        else value
        for key, value in values.items()
    }
    return {key: value for key, value in rest.items() if not isinstance(value, Mapping) or value}


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Base class: the entries of `part` do not travel; on every client they start as initialised.

    The global model has their initial values.
    """

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = {ROLE: WHY}

    def part(self, model: nn.Module) -> frozenset[str]:
        """Return the ``state_dict`` names of what does not travel; the classifier."""
        return head_keys(model)

    @hookimpl
    def send_broadcast(self, ctx: ServerContext, payload: Payload) -> Mapping[str, Value]:
        return without(payload, self.part(ctx.model))

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        return without(uploads, self.part(ctx.model))


@dataclass(frozen=True, eq=False)
class Kept(LeftOut):
    """Base class: every client has entries of its own, trained in its turns and used in its scores.

    In its first turn a client starts with the initial values. A client that has not had a turn is
    scored with them. ``ctx.payload`` has all weights, the received and the client's own, so that
    other plugins need not know.
    """

    key: ClassVar[str]
    """Key of the client's state."""

    @hookimpl
    def receive_broadcast(self, ctx: ClientContext, payload: Payload) -> Mapping[str, Value]:
        if KEY not in payload:
            return dict(payload)
        own = {name: ctx.initial[name] for name in self.part(ctx.model) if name in ctx.initial}
        mine = {name: value.to(ctx.device) for name, value in {**own, **self.kept(ctx)}.items()}
        return {**payload, KEY: {**payload.weights(KEY), **mine}}

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> object:
        trained = yield
        self.keep(ctx)
        return trained

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        ctx.model.load_state_dict({**ctx.model.state_dict(), **self.kept(ctx)})

    def keep(self, ctx: ClientContext) -> None:
        """Keep the client's part as it is now in ``ctx.model``."""
        part, weights = self.part(ctx.model), ctx.model.state_dict()
        ctx.state[self.key] = {name: w for name, w in weights.items() if name in part}

    def kept(self, ctx: ClientContext) -> Weights:
        """Return the client's part as of the end of its last turn; empty before the first."""
        found = ctx.state.get(self.key, {})
        assert isinstance(found, Mapping)
        return found
