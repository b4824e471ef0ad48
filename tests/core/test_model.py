"""Weights get into a model as by ``load_state_dict``; its layout for images computes the same."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedbench.model import BLOCK, Loader, for_images


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


def strided(channels: int, stride: int | tuple[int, int]) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, 8, 1, stride)


@pytest.mark.parametrize("stride", [2, 3, (1, 2), (2, 1)])
@pytest.mark.parametrize("channels", [2, 4, 7, BLOCK])
def test_a_strided_1x1_convolution_for_images_is_the_same_function(
    channels: int, stride: int | tuple[int, int]
) -> None:
    """oneDNN writes past its memory where the weights' gradient has few channels and a stride."""
    x = torch.rand(3, channels, 9, 16).contiguous(memory_format=torch.channels_last)
    exact, layer = strided(channels, stride).double(), for_images(strided(channels, stride))
    again = copy.deepcopy(layer)

    wanted = exact(x.double())
    wanted.square().sum().backward()
    for made in (layer, again):
        assert channels >= BLOCK or made.stride == (1, 1)
        found = made(x)
        found.square().sum().backward()
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
        for mine, its in zip(made.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(mine.grad.double(), its.grad, rtol=1e-4, atol=1e-4)


def test_other_layers_keep_their_stride() -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 8, 1, 2, groups=2), nn.Conv2d(8, 8, 1, 2, 1)
    )
    assert [layer.stride for layer in for_images(layers)] == [(2, 2)] * 3
    assert not any(layer._forward_pre_hooks for layer in layers)


TRAINED = """
import torch
from fedbench_baselines.models import ResNet10
from fedbench.model import for_images

torch.set_num_threads(1)
model = for_images(ResNet10(filters=4).build((3, 32, 32), 3))
x = torch.rand(3, 3, 32, 32).contiguous(memory_format=torch.channels_last)
for _ in range(30):
    model.classifier(model.features(x)).sum().backward()
print("trained")
"""


def test_a_narrow_residual_network_trains_on_every_processor() -> None:
    """Without `for_images`, the process dies here on a processor with AVX2 and no AVX-512."""
    ran = subprocess.run([sys.executable, "-c", TRAINED], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "trained\n"), ran.stderr
