"""A model that a run cannot use is refused before round 1, with what to add."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fedbench.engine.run import Run
from fedbench.errors import PluginError
from fedbench.hookspecs import hookimpl
from fedbench.runtime import Runtime


class Body(nn.Module):
    """Takes the tiny data's images; a test changes or removes one of its parts."""

    def __init__(self, **parts):
        super().__init__()
        self.hidden = nn.Linear(64, 6)
        self.classifier = nn.Linear(6, 3)
        for name, part in parts.items():
            setattr(self, name, part)

    def features(self, inputs):
        return self.hidden(inputs.flatten(1))


class Headless(nn.Module):
    """A network without separate parts, as in most tutorials."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(64, 3)

    def forward(self, inputs):
        return self.classifier(inputs.flatten(1))


@dataclass(frozen=True, eq=False)
class First:
    """Selects clients, which is the first thing that happens in a round."""

    @hookimpl
    def select_clients(self):
        pytest.fail("a round began")


def offer(registry, make) -> None:
    """Return a function that registers what ``make`` returns as the model ``mine``."""

    @dataclass(frozen=True, eq=False)
    class Source:
        def build(self, input_shape, num_classes):
            return make()

    registry.add(SimpleNamespace(register_models=hookimpl(lambda: {"mine": Source})), "tests")


@pytest.fixture
def refused(registry, tiny_config, add):
    """Run with a model that ``make`` returns and return the error, which comes before round 1."""

    def refused(make, error: type[Exception] = PluginError, **given) -> Exception:
        offer(registry, make)
        add(first=First)
        config = tiny_config(
            registry, model="mine", without=["uniform"], **{"extra": {"first": {}}, **given}
        )
        with pytest.raises(error) as caught:
            Run(config, registry=registry).run()
        return caught.value

    return refused


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: 3, "model 'mine': build must return an nn.Module, it returned int"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
            "model 'mine' needs an nn.Linear named 'classifier'",
        ),
        (
            lambda: Body(classifier=nn.Sequential(nn.Linear(6, 3))),
            "model 'mine' needs an nn.Linear named 'classifier'",
        ),
        (
            Headless,
            "model 'mine' needs a method features(inputs) that returns what goes into "
            "'classifier': (B, 64) for a batch of B examples",
        ),
        (
            lambda: Body(features=6),
            "model 'mine' needs a method features(inputs) that returns what goes into "
            "'classifier': (B, 6) for a batch of B examples",
        ),
        (
            lambda: Body(classifier=nn.Linear(6, 2)),
            "model 'mine': 'classifier' has 2 outputs, the data set has 3 classes; give it "
            "num_classes outputs",
        ),
        (
            lambda: Body(hidden=nn.LazyLinear(6)),
            "model 'mine': 'hidden.weight' has no size yet; build must give every layer its sizes",
        ),
    ],
    ids=["no module", "none", "not linear", "no features", "no method", "outputs", "lazy"],
)
def test_a_model_without_its_parts_says_what_to_add(refused, make, text):
    assert str(refused(make)) == text


@pytest.mark.parametrize(
    ("features", "what"),
    [
        (lambda inputs: inputs, "shape (1, 1, 8, 8)"),
        (lambda inputs: inputs.flatten(1)[:, :5], "shape (1, 5)"),
        (lambda inputs: inputs.flatten(1)[:, :6].squeeze(), "shape (6,)"),
        (lambda inputs: (inputs.flatten(1)[:, :6], inputs), "tuple"),
    ],
    ids=["maps", "another size", "squeezed", "two values"],
)
def test_features_that_the_classifier_cannot_take(refused, features, what):
    assert str(refused(lambda: Body(features=features))) == (
        "model 'mine': for one example, inputs of shape (1, 1, 8, 8), features(inputs) must return "
        "a tensor of shape (1, 6), (B, d) with d the in_features of 'classifier'; it returned "
        f"{what}"
    )


def test_features_that_fail_say_where(refused):
    error = refused(lambda: Body(hidden=nn.Linear(63, 6)), RuntimeError)
    assert "mat1 and mat2 shapes cannot be multiplied" in str(error)
    assert error.__notes__ == [
        "in features(inputs) of model 'mine', with one example: inputs of shape (1, 1, 8, 8)"
    ]


def test_trying_the_model_changes_neither_it_nor_random_numbers(registry, tiny_config):
    class Counting(Body):
        def __init__(self):
            super().__init__()
            self.norm, self.drop = nn.BatchNorm1d(6), nn.Dropout()
            self.modes = []

        def features(self, inputs):
            self.modes.append(self.training)
            return self.drop(self.norm(super().features(inputs)))

    offer(registry, Counting)
    before = torch.get_rng_state()
    runtime = Runtime(tiny_config(registry, model="mine"), registry, Path())
    assert torch.equal(torch.get_rng_state(), before)
    assert runtime.model.modes == [False]
    assert runtime.model.training
    for name, value in runtime.model.state_dict().items():
        assert torch.equal(value, runtime.initial[name])
    assert runtime.model.norm.num_batches_tracked == 0
