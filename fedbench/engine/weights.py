"""New global weights from a plugin: of the model's names, shapes, types and layout, and a copy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import PluginError, did_you_mean
from ..types import Weights


def aliases(model: nn.Module) -> dict[str, str]:
    """Return name -> the first name of the same tensor, of tied weights."""
    first: dict[int, str] = {}
    names = {
        name: first.setdefault(id(tensor), name)
        for name, tensor in model.state_dict(keep_vars=True).items()
    }
    return {name: other for name, other in names.items() if name != other}


def checked(weights: object, known: Weights, plugin: str, hook: str) -> Weights:
    """Return what a plugin returned as weights.

    Args:
        weights: what it returned.
        known: the weights so far, by name.
        plugin: its name.
        hook: which hook returned it.

    Raises:
        PluginError: for what are no weights of the model.
    """
    if not isinstance(weights, Mapping):
        raise PluginError(
            f"plugin {plugin!r}: {hook} returned {type(weights).__name__}; return weights by name"
        )
    for name, value in weights.items():
        if name not in known:
            near = did_you_mean(str(name), known)
            raise PluginError(f"plugin {plugin!r}: the model has no weight {name!r}{near}")
        if value.shape != known[name].shape:
            raise PluginError(
                f"plugin {plugin!r}: weight {name!r} has shape {tuple(value.shape)}, the model's "
                f"is {tuple(known[name].shape)}"
            )
    return dict(weights)


def as_kept(weights: Weights, known: Weights, tied: Mapping[str, str]) -> Weights:
    """Return a copy on the CPU, as it would be after resuming from a checkpoint.

    Whole numbers that a mean has made fractions of are rounded. A name of `aliases` gets what the
    first name of its tensor gets.
    """
    found = {name: _like(known[name], value) for name, value in weights.items()}
    return found | {name: found[first] for name, first in tied.items() if first in found}


def _like(own: Tensor, value: Tensor) -> Tensor:
    whole = value.is_floating_point() and not own.is_floating_point()
    value = value.detach().round() if whole else value.detach()
    return value.to("cpu", own.dtype, copy=True, memory_format=torch.contiguous_format)
