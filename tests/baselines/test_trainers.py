"""Trainers: torch's numbers to the bit, the learning rate over the rounds, clipping, steps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fedbench_baselines.adam import Adam, AdamW, Moments
from fedbench_baselines.adam import step as adam_step
from fedbench_baselines.sgd import Sgd
from fedbench_baselines.trainers import Trainer, scheduled
from torch import nn

from fedbench import ClientContext, ConfigError, Run, testing
from fedbench.ambient import settled
from fedbench.config import resolve as configs
from fedbench.plugins.registry import Registry

TRAINERS: dict[str, tuple[type[Trainer], type[torch.optim.Optimizer]]] = {
    "sgd": (Sgd, torch.optim.SGD),
    "adam": (Adam, torch.optim.Adam),
    "adamw": (AdamW, torch.optim.AdamW),
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "sgd": [{}, {"momentum": 0.0}, {"weight_decay": 0.1}],
    "adam": [{}, {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3}, {"weight_decay": 0.1}],
    "adamw": [{}, {"beta1": 0.0}, {"weight_decay": 0.5}],
}
CASES = [(name, options) for name, found in OPTIONS.items() for options in found]


def by_torch(name: str, rule: Trainer, ctx: ClientContext, clip: float | None = None) -> None:
    """Train ``ctx.model`` with torch's own optimiser, as ``rule`` describes it."""
    given: dict[str, Any] = {"lr": rule.lr, "weight_decay": rule.weight_decay}  # type: ignore[attr-defined]
    if isinstance(rule, Adam):
        given |= {"betas": (rule.beta1, rule.beta2), "eps": rule.eps}
    else:
        given["momentum"] = rule.momentum  # type: ignore[attr-defined]
    optimizer = TRAINERS[name][1](ctx.model.parameters(), **given)
    with settled():
        for batch in ctx.batches(rule.batch_size, rule.epochs):
            optimizer.zero_grad()
            ctx.loss(batch).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(ctx.model.parameters(), clip)
            optimizer.step()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_turn_has_the_bits_of_torchs_optimiser(name: str, options: dict[str, Any]) -> None:
    rule = TRAINERS[name][0](epochs=3, batch_size=8, **options)
    mine, theirs = testing.client_context(plugins={name: rule}), testing.client_context()
    start = testing.client_context().model
    testing.run_turn(mine)
    by_torch(name, rule, theirs)
    assert same(mine.model, theirs.model)
    assert not same(mine.model, start)


@pytest.mark.parametrize("decoupled", [False, True])
def test_a_weight_of_adam_that_starts_late_or_pauses_is_as_in_torch(decoupled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    mine, theirs = ([nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(5))] for _ in "ab")
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind(theirs, lr=0.1, weight_decay=0.01)
    moments: list[Moments | None] = [None, None]
    for number in range(5):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            a.grad = None if len(a) == 5 and number in (0, 2) else a.grad
            b.grad = a.grad
        adam_step(mine, moments, 0.1, (0.9, 0.999), 1e-8, 0.01, decoupled)
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert moments[1] is not None
    assert float(moments[1].steps) == 3


def test_the_first_step_of_adam_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 1.0]))
    weight.grad = torch.tensor([2.0, -0.5])
    adam_step([weight], [None], 0.1, (0.9, 0.999), 1e-8, 0.0, False)
    # Both corrected moments are those of one gradient, so the step is lr x sign(g).
    assert weight.tolist() == pytest.approx([0.9, 1.1])


@pytest.mark.parametrize("name", TRAINERS)
def test_clipping_is_torchs(name: str) -> None:
    options = {"epochs": 1, "batch_size": 8, "lr": 0.1}
    plain, tight = TRAINERS[name][0](**options), TRAINERS[name][0](**options, clip_norm=0.05)
    mine = testing.client_context(plugins={name: tight})
    theirs, free = testing.client_context(), testing.client_context()
    testing.run_turn(mine)
    by_torch(name, plain, theirs, clip=0.05)
    by_torch(name, plain, free)
    assert same(mine.model, theirs.model)
    assert not same(mine.model, free.model)


@pytest.mark.parametrize("name", TRAINERS)
def test_what_others_read_of_a_pass(name: str) -> None:
    rule = TRAINERS[name][0](lr=0.4, epochs=2, batch_size=8, schedule="cosine")
    ctx = testing.client_context(plugins={name: rule}, round=3, rounds=4)
    testing.run_turn(ctx)
    assert ctx.training is not None
    assert ctx.training.lr == pytest.approx(0.2)
    assert ctx.training.momentum == (0.9 if name == "sgd" else None)
    assert ctx.training.steps == 6


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 10), ({"drop_last": True}, 8), ({"max_steps": 3}, 3), ({"max_steps": 40}, 10)],
)
@pytest.mark.parametrize("name", TRAINERS)
def test_steps_of_a_turn(name: str, options: dict[str, Any], steps: int) -> None:
    rule = TRAINERS[name][0](epochs=2, batch_size=5, **options)  # 24 examples
    ctx = testing.client_context(plugins={name: rule})
    testing.run_turn(ctx)
    assert ctx.training is not None
    assert ctx.training.steps == steps


def test_schedules_by_hand() -> None:
    def rates(rounds: int = 5, **options: Any) -> list[float]:
        rule = Sgd(lr=0.8, **options)
        return [rule.learning_rate(r, rounds) for r in range(1, rounds + 1)]

    assert rates() == [0.8] * 5
    assert rates(schedule="step", decay=0.5, decay_rounds=2) == [0.8, 0.8, 0.4, 0.4, 0.2]
    assert rates(schedule="exponential", decay=0.5, decay_rounds=1) == pytest.approx(
        [0.8, 0.4, 0.2, 0.1, 0.05]
    )
    root = 0.5**0.5
    assert rates(schedule="exponential", decay=0.5, decay_rounds=2) == pytest.approx(
        [0.8, 0.8 * root, 0.4, 0.4 * root, 0.2]
    )
    assert rates(4, schedule="cosine") == pytest.approx(
        [0.8, 0.4 * (1 + root), 0.4, 0.4 * (1 - root)]
    )


def test_a_warm_up_rises_in_equal_steps_and_the_schedule_starts_after_it() -> None:
    def rates(**options: Any) -> list[float]:
        rule = Sgd(lr=0.8, warmup=3, **options)
        return [rule.learning_rate(r, 7) for r in range(1, 8)]

    assert rates() == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8])
    later = [scheduled(0.8, r, 4, "cosine", 0, 0.5, 1) for r in range(1, 5)]
    assert rates(schedule="cosine") == pytest.approx([0.2, 0.4, 0.6, *later])
    assert rates(schedule="step", decay=0.1, decay_rounds=3)[3:] == pytest.approx(
        [0.8] * 3 + [0.08]
    )


def test_a_warm_up_as_long_as_the_run_only_rises() -> None:
    rule = Sgd(lr=1.0, warmup=9, schedule="cosine")
    assert [rule.learning_rate(r, 3) for r in (1, 2, 3)] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_with_a_trainer_replaces_sgd(name: str, installed: Registry) -> None:
    plain = configs.resolve(installed, "fedavg", flags={"data": "digits"})
    other = configs.resolve(installed, "fedavg", flags={"data": "digits"}, plus=[name])
    assert list(other.plugins) == [name if p == "sgd" else p for p in plain.plugins]


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_method_trains_with_it(name: str, run_tiny: Callable[..., Run]) -> None:
    given = {"without": ["sgd"], "extra": {name: {"epochs": 1, "batch_size": 8}}}
    runs = [run_tiny("fedhpro", rounds=2, **given), run_tiny("fedhpro", rounds=2, **given)]
    first, second = (run.result()["weights_sha256"] for run in runs)
    assert first == second != run_tiny("fedhpro", rounds=2).result()["weights_sha256"]


def test_a_batch_of_one_is_refused_in_the_trainers_own_name(run_tiny: Callable[..., Run]) -> None:
    model = {"name": "resnet10", "filters": 1}
    with pytest.raises(ConfigError, match=r"^adamw\.batch_size is 1; .*set a larger adamw\.batch"):
        run_tiny(model=model, without=["sgd"], extra={"adamw": {"batch_size": 1}})


def test_training_does_not_load_the_compiler() -> None:
    code = """
import sys, torch
from fedbench_baselines import adam, sgd
layer = torch.nn.Linear(2, 1)
layer(torch.ones(1, 2)).sum().backward()
torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
parameters, state = list(layer.parameters()), [None, None]
sgd.step(parameters, state, 0.1, 0.9, 1e-5)
for decoupled in (False, True):
    adam.step(parameters, [None, None], 0.1, (0.9, 0.999), 1e-8, 1e-5, decoupled)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
