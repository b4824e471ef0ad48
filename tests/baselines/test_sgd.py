"""Local training: a step by hand, the learning rate over rounds, batches, and the loss."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from fedbench_baselines.models import ResNet10
from fedbench_baselines.sgd import CrossEntropy, Sgd, step
from fedbench_baselines.trainers import training_error
from torch import nn

from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.training import Meter, Training
from fedbench.types import Batch, Output


class Client:
    """The parts of a client that a trainer needs: one weight, fixed batches of one input."""

    def __init__(self, inputs: list[float], w: float, round: int = 1, rounds: int = 10) -> None:
        self.round, self.rounds = round, rounds
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.model.weight, w)
        self._inputs = inputs
        self.asked: tuple[int, int, bool, int | None] | None = None
        self.meter = Meter()
        self.acted = 0
        self.phases: list[str] = []

    def train(self, rule) -> Training:
        work = Training(self, self.loss)
        assert rule.train(ctx=self, work=work) is True
        return work

    def batches(self, batch_size, epochs, drop_last, stream, *, steps, stretch):
        self.asked = (batch_size, epochs, drop_last, steps)
        for epoch in range(epochs):
            for x in self._inputs:
                yield Batch(torch.tensor([[x]]), torch.zeros(1).long(), epoch, epochs)

    def loss(self, batch):
        return self.model(batch.inputs).sum()  # gradient: the input

    def phase(self, name):
        self.phases.append(name)
        return nullcontext()

    def after_backward(self, batch):
        self.acted += 1

    @property
    def w(self) -> float:
        return float(self.model.weight.detach())


def test_what_others_read_of_a_pass():
    work = Client([2.0, -1.0], w=1.0, round=3, rounds=4).train(
        Sgd(lr=0.4, momentum=0.5, epochs=3, schedule="cosine")
    )
    assert (work.lr, work.momentum, work.steps) == (pytest.approx(0.2), 0.5, 6)


def test_plain_steps_by_hand():
    client = Client([2.0, -1.0], w=1.0)
    client.train(Sgd(lr=0.1, momentum=0, weight_decay=0, epochs=1))
    # 1 - 0.1 x 2 + 0.1 x 1
    assert client.w == pytest.approx(0.9)
    assert client.acted == client.meter.examples == 2


def test_momentum_and_weight_decay_by_hand():
    client = Client([2.0, -1.0], w=1.0)
    client.train(Sgd(lr=0.1, momentum=0.5, weight_decay=0.2, epochs=1))
    # step 1: g = 2 + 0.2 x 1 = 2.2,          v = 2.2,                    w = 1 - 0.22 = 0.78
    # step 2: g = -1 + 0.2 x 0.78 = -0.844,   v = 1.1 - 0.844 = 0.256,    w = 0.78 - 0.0256
    assert client.w == pytest.approx(0.7544)


def test_momentum_starts_from_nothing_in_every_turn():
    rule = Sgd(lr=0.1, momentum=0.9, weight_decay=0, epochs=1)
    client = Client([1.0], w=0.0)
    client.train(rule)
    client.train(rule)
    assert client.w == pytest.approx(-0.2)


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 1e-2)])
def test_steps_are_those_of_torch_to_the_bit(momentum, weight_decay):
    generator = torch.Generator().manual_seed(0)
    mine, theirs = ([nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(5))] for _ in "ab")
    optimizer = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=weight_decay)
    momenta = [None, None]
    for number in range(4):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            # The second weight's momentum starts later and pauses for a step.
            a.grad = None if len(a) == 5 and number in (0, 2) else a.grad
            b.grad = a.grad
        step(mine, momenta, 0.1, momentum, weight_decay)
        optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not torch.equal(mine[1], torch.ones(5))


def test_batch_options_are_passed_on():
    client = Client([1.0], w=0.0)
    client.train(Sgd(epochs=3, batch_size=17, drop_last=True, max_steps=40))
    assert client.asked == (17, 3, True, 40)
    assert client.acted == 3


def test_a_step_names_its_phases():
    client = Client([1.0, 2.0], w=0.0)
    client.train(Sgd(epochs=1))
    assert client.phases == ["backward", "optimiser"] * 2


def test_parameters_that_are_frozen_stay():
    client = Client([1.0], w=1.0)
    client.model.weight.requires_grad_(False)
    extra = nn.Parameter(torch.ones(1))
    client.model.register_parameter("extra", extra)
    client.loss = lambda batch: (batch.inputs * client.model.extra).sum()
    client.train(Sgd(lr=0.1, momentum=0, weight_decay=0, epochs=1))
    assert client.w == 1.0
    assert float(extra.detach()) == pytest.approx(0.9)


def test_the_learning_rate_is_constant_or_falls_as_half_a_cosine():
    constant, cosine = Sgd(lr=0.4), Sgd(lr=0.4, schedule="cosine")
    assert [constant.learning_rate(r, 4) for r in (1, 2, 3, 4)] == [0.4] * 4
    rates = [cosine.learning_rate(r, 4) for r in (1, 2, 3, 4)]
    half = math.sqrt(0.5)
    assert rates == pytest.approx([0.4, 0.2 * (1 + half), 0.2, 0.2 * (1 - half)])
    assert cosine.learning_rate(5, 4) == pytest.approx(0, abs=1e-12)


def test_the_schedule_acts_in_the_rounds_step():
    client = Client([1.0], w=0.0, round=3, rounds=4)
    rule = Sgd(lr=0.4, momentum=0, weight_decay=0, epochs=1, schedule="cosine")
    client.train(rule)
    assert client.w == pytest.approx(-0.2)


# --- the loss ------------------------------------------------------------------------------------

LOGITS = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]))


def cross_entropy(**options) -> float:
    batch = Batch(torch.zeros(2, 1), torch.tensor([0, 2]), 0, 1)
    output = Output(torch.zeros(2, 1), LOGITS)
    terms = CrossEntropy(**options).local_loss(batch=batch, output=output)
    assert list(terms) == ["cross_entropy"]
    return float(terms["cross_entropy"])


def test_cross_entropy_by_hand():
    # -(log 0.5 + log 0.125) / 2
    assert cross_entropy() == pytest.approx(2 * math.log(2))
    assert cross_entropy(weight=0.5) == pytest.approx(math.log(2))
    assert cross_entropy(weight=0) == 0


def test_label_smoothing_mixes_in_the_uniform_distribution():
    uniform = -float(LOGITS.mean())
    assert cross_entropy(label_smoothing=0.3) == pytest.approx(
        0.7 * 2 * math.log(2) + 0.3 * uniform
    )


# --- batches of a real run -----------------------------------------------------------------------


def test_each_example_is_seen_once_an_epoch_in_a_new_order(registry, tiny_config, add):
    from fedbench.engine.run import Run

    seen: list[tuple[int, int, torch.Tensor]] = []

    @dataclass(frozen=True, eq=False)
    class Eyes:
        @hookimpl
        def after_backward(self, ctx, batch):
            seen.append((ctx.client, batch.epoch, batch.inputs.flatten(1)))

    add(eyes=Eyes)
    extra = {"sgd": {"epochs": 2, "batch_size": 5}, "eyes": {}}
    Run(tiny_config(registry, rounds=1, extra=extra), registry=registry).run()
    first = [x for client, epoch, x in seen if (client, epoch) == (0, 0)]
    second = [x for client, epoch, x in seen if (client, epoch) == (0, 1)]
    assert [len(x) for x in first] == [5, 5, 5, 3]
    rows = [sorted(map(tuple, torch.cat(part).tolist())) for part in (first, second)]
    assert rows[0] == rows[1]
    assert len(set(rows[0])) == 18
    assert not torch.equal(torch.cat(first), torch.cat(second))


@pytest.mark.parametrize(("batch_size", "sizes"), [(5, [5, 5, 5]), (18, [18]), (40, [18])])
def test_drop_last_leaves_out_a_smaller_last_batch_unless_it_is_the_only_one(
    run_tiny, add, batch_size, sizes
):
    seen: list[int] = []

    @dataclass(frozen=True, eq=False)
    class Eyes:
        @hookimpl
        def after_backward(self, ctx, batch):
            if ctx.client == 0:
                seen.append(len(batch.labels))

    add(eyes=Eyes)
    run_tiny(rounds=1, extra={"sgd": {"drop_last": True, "batch_size": batch_size}, "eyes": {}})
    assert seen == sizes


# --- batches of one example ----------------------------------------------------------------------

TORCH = "Expected more than 1 value per channel when training, got input size torch.Size("
SMALL = {"name": "resnet10", "filters": 1}
"""On the tiny data's 8 x 8 pixels its last batch norm gets one value per channel and example."""


@dataclass(frozen=True, eq=False)
class Sizes:
    """Gives clients the first ``sizes`` examples, in turn."""

    sizes: tuple[int, ...]

    @hookimpl
    def partition(self, data):
        return torch.arange(sum(self.sizes)).split(self.sizes)


@pytest.mark.parametrize(
    ("sizes", "sgd", "what", "mend"),
    [
        (
            (16, 15, 14),
            {"batch_size": 7},
            "client 1 has 15 examples, so its last batch of sgd.batch_size 7 has one",
            "set sgd.drop_last=true or another sgd.batch_size",
        ),
        (
            (1, 8, 8, 8, 8, 8),
            {"batch_size": 7},
            "client 1 has 8 examples, so its last batch of sgd.batch_size 7 has one (also clients "
            "2, 3, 4 and 1 more)",
            "set sgd.drop_last=true or another sgd.batch_size",
        ),
        (
            (8, 1, 9, 1),
            {"batch_size": 7, "drop_last": True},
            "client 1 has one example (also client 3)",
            "partition the data so that every client has more, or use a model without batch norm",
        ),
        (
            (4, 4),
            {"batch_size": 1, "drop_last": True},
            "sgd.batch_size is 1",
            "set a larger sgd.batch_size",
        ),
    ],
    ids=["last batch", "several", "one example", "size one"],
)
def test_batch_norm_and_a_batch_of_one_are_refused_before_round_1(
    run_tiny, add, sizes, sgd, what, mend
):
    add(sizes=Sizes)
    with pytest.raises(ConfigError) as caught:
        run_tiny(model=SMALL, without=["domains"], extra={"sizes": {"sizes": sizes}, "sgd": sgd})
    start, end = str(caught.value).split(TORCH)
    assert start == f"{what}; batch norm cannot train on a single example ("
    assert end.endswith(f")): {mend}")


@pytest.mark.parametrize(
    ("model", "sgd"),
    [
        (SMALL, {"batch_size": 7, "drop_last": True}),
        (SMALL, {"batch_size": 13}),
        ({"name": "cnn", "width": 1, "feature_size": 2}, {"batch_size": 7}),
    ],
    ids=["dropped", "another size", "no batch norm"],
)
def test_what_the_message_advises_works(run_tiny, add, model, sgd):
    add(sizes=Sizes)
    extra = {"sizes": {"sizes": (15, 15)}, "sgd": sgd}
    assert len(run_tiny(model=model, without=["domains"], extra=extra, rounds=1).history) == 1


@pytest.mark.parametrize("batch", [1, 2])
def test_trying_a_model_in_training_mode_leaves_it_as_it_was(batch):
    model = ResNet10(filters=1).build((1, 8, 8), 3).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (training_error(model, inputs) is None) == (batch == 2)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
