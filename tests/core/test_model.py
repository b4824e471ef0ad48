"""Weights get into a model as by ``load_state_dict``, also where that is more than copying."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedbench.model import Loader


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def hooked() -> nn.Module:
    """A model that doubles what it loads."""
    model = plain()

    def double(state: dict[str, Tensor], *_: Any) -> None:
        state["3.bias"] = 2 * state["3.bias"]

    model._register_load_state_dict_pre_hook(double)
    return model


class Shy(nn.Linear):
    """A layer whose ``state_dict`` holds copies."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("weight", "bias"):
            destination[prefix + name] = destination[prefix + name].clone()


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "hooked": hooked,
    "copies": lambda: nn.Sequential(Shy(3, 2)),
    "turned": lambda: plain().to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_loads_what_load_state_dict_loads(name: str) -> None:
    one, other = MODELS[name](), MODELS[name]()
    weights = {n: torch.rand(v.shape).to(v.dtype) for n, v in MODELS[name]().state_dict().items()}
    loader = Loader(one)
    parameters = [*one.parameters()]

    loader.load(weights)
    other.load_state_dict(weights)

    assert all(torch.equal(v, other.state_dict()[n]) for n, v in one.state_dict().items())
    assert [*map(id, one.parameters())] == [*map(id, parameters)]
    assert all(p.requires_grad and p.grad_fn is None for p in parameters)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": torch.ones(1)}, "Unexpected key"),
        ({"3.bias": torch.ones(1)}, "size mismatch for 3.bias"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Tensor], said: str) -> None:
    model = plain()

    with pytest.raises(RuntimeError, match=said):
        Loader(model).load({**model.state_dict(), **change})
