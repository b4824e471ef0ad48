"""New global weights from a plugin: of the model's names, shapes and types, finite, and a copy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import NonFiniteError, PluginError, did_you_mean
from ..types import Weights
from ..values import all_finite


def aliases(model: nn.Module) -> dict[str, str]:
    """Return name -> the first name of the same tensor, of tied weights."""
    first: dict[int, str] = {}
    names = {
        name: first.setdefault(id(tensor), name)
        for name, tensor in model.state_dict(keep_vars=True).items()
    }
    return {name: other for name, other in names.items() if name != other}


def new_weights(
    weights: object, known: Weights, tied: Mapping[str, str], who: str, when: str
) -> Weights:
    """Return a copy on the CPU of what a plugin returned as weights.

    They have the layout and types that they would have after resuming from a checkpoint. Whole
    numbers that a mean has made fractions of are rounded.

    Args:
        weights: what it returned.
        known: the weights so far, by name.
        tied: as from `aliases`; a name that is another's gets what that one gets.
        who: the plugin and hook, for errors.
        when: for the error of a value that is not finite.

    Raises:
        PluginError: for what are no weights of the model.
        NonFiniteError: for a NaN or infinite value.
    """
    if not isinstance(weights, Mapping):
        raise PluginError(f"{who} returned {type(weights).__name__}; return weights by name")
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name not in known:
            raise PluginError(
                f"{who}: the model has no weight {name!r}{did_you_mean(str(name), known)}"
            )
        own = known[name]
        if value.shape != own.shape:
            raise PluginError(
                f"{who}: weight {name!r} has shape {tuple(value.shape)}, the model's is "
                f"{tuple(own.shape)}"
            )
        if not all_finite(value):
            raise NonFiniteError(f"weight {name!r} is not finite {when}")
        found[name] = _like(own, value)
    return found | {name: found[first] for name, first in tied.items() if first in found}


def _like(own: Tensor, value: Tensor) -> Tensor:
    whole = value.is_floating_point() and not own.is_floating_point()
    value = value.detach().round() if whole else value.detach()
    return value.to("cpu", own.dtype, copy=True, memory_format=torch.contiguous_format)
