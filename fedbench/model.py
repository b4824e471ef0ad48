"""A run's model: whether it has the parts that core needs, and how weights get into it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from .errors import PluginError
from .values import Weights


def checked(name: str, model: object, num_classes: int) -> nn.Module:
    """Return what ``build`` returned if it has the parts of a `Model`.

    Raises:
        PluginError: for a part that is missing or of the wrong kind; it says what to add.
    """
    if not isinstance(model, nn.Module):
        raise PluginError(
            f"model {name!r}: build must return an nn.Module, it returned {type(model).__name__}"
        )
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Linear):
        raise PluginError(f"model {name!r} needs an nn.Linear named 'classifier'")
    if not callable(getattr(model, "features", None)):
        raise PluginError(
            f"model {name!r} needs a method features(inputs) that returns what goes into "
            f"'classifier': (B, {classifier.in_features}) for a batch of B examples"
        )
    if classifier.out_features != num_classes:
        raise PluginError(
            f"model {name!r}: 'classifier' has {classifier.out_features} outputs, the data set has "
            f"{num_classes} classes; give it num_classes outputs"
        )
    for weight, value in model.state_dict(keep_vars=True).items():
        if is_lazy(value):
            raise PluginError(
                f"model {name!r}: {weight!r} has no size yet; build must give every layer its sizes"
            )
    return model


BLOCK = 16
"""The most channels that oneDNN's kernels compute at a time, with AVX-512."""


def for_images(model: nn.Module) -> nn.Module:
    """Lay a model out for batches of images, with the channels of a pixel side by side.

    A 1x1 convolution with a stride and fewer input channels than a block of oneDNN writes past its
    memory in this layout when it computes the weights' gradient, with AVX2: it crashes, or the
    gradient is wrong (uxlfoundation/oneDNN, issue 6035). Such layers get the pixels that they read
    and a stride of 1, which is the same function.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _writes_past_its_memory(module):
            module.register_forward_pre_hook(partial(_only_read, module.stride))
            module.stride = (1, 1)
    return model.to(memory_format=torch.channels_last)


def _writes_past_its_memory(conv: nn.Conv2d) -> bool:
    unpadded = conv.padding in ("valid", (0, 0))
    few = conv.groups == 1 and conv.in_channels < BLOCK
    return few and unpadded and conv.kernel_size == (1, 1) and max(conv.stride) > 1


def _only_read(stride: Sequence[int], module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    (x,), (rows, columns) = args, stride
    return (x[..., ::rows, ::columns],)


class Loader:
    """Loads weights into one model, as ``load_state_dict`` does, but in half the time.

    For a model with many small tensors, ``load_state_dict`` takes longer than a training step.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ordinary = all(map(_only_copies, model.modules()))
        kept = model.state_dict()
        self._passing = [(b, b.clone()) for n, b in model.named_buffers() if n not in kept]

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Copy ``weights``, which has a tensor for each name in ``state_dict()``.

        Raises:
            RuntimeError: for names or shapes that do not fit, as from ``load_state_dict``.
        """
        for buffer, value in self._passing:  # what is not persistent does not outlive a turn
            buffer.copy_(value)
        own = self._model.state_dict()
        fits = own.keys() == weights.keys() and all(
            weights[name].shape == value.shape for name, value in own.items()
        )
        if not (self._ordinary and fits):
            self._model.load_state_dict(weights)
            return
        for name, value in own.items():
            value.copy_(weights[name])


def _only_copies(module: nn.Module) -> bool:
    """Return whether saving and loading what a module itself holds is nothing but tensors."""
    kind, plain = type(module), nn.Module
    hooks = (
        *(module._load_state_dict_pre_hooks, module._load_state_dict_post_hooks),
        *(module._state_dict_pre_hooks, module._state_dict_hooks),
    )
    own = (
        kind.load_state_dict is not plain.load_state_dict,
        kind._load_from_state_dict
        not in (plain._load_from_state_dict, _NormBase._load_from_state_dict),
        kind._save_to_state_dict is not plain._save_to_state_dict,
        kind.set_extra_state is not plain.set_extra_state,
    )
    return not any(hooks) and not any(own)
