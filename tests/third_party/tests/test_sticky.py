"""The rules of the conformance kit, and numbers worked out by hand."""

import pytest
import torch
from sticky_federation import MeanReciprocalRank, Sticky

from fedbench import testing

RULES = [
    rule
    for kind, name in (
        ("method", "sticky"),
        ("plugin", "sticky"),
        ("partition", "by_ink"),
        ("metric", "mrr"),
    )
    for rule in testing.rules(kind, name)
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.subject.label}: {rule}")
def test_conformance(rule):
    rule.check()


def turn(plugin, state, weight, trained):
    """Play a turn of a model whose only weight, ``weight``, training moves to ``trained``."""
    model = torch.nn.Linear(1, 1, bias=False)
    ctx = testing.client_context(model=model, state=state)
    torch.nn.init.constant_(model.weight, weight)
    steps = plugin.client_update(ctx)
    next(steps)
    terms = plugin.local_loss(ctx)
    torch.nn.init.constant_(model.weight, trained)
    with pytest.raises(StopIteration, match="done"):
        steps.send("done")
    return terms, ctx.state


def test_home_is_a_running_mean_and_the_term_is_half_the_squared_distance():
    plugin = Sticky(mu=0.5, memory=0.75)
    terms, state = turn(plugin, {}, weight=9.0, trained=2.0)
    assert terms == {}
    assert state["sticky.home"]["weight"].item() == 2.0
    terms, state = turn(plugin, state, weight=5.0, trained=6.0)
    assert terms["sticky"].item() == pytest.approx(0.5 / 2 * (5 - 2) ** 2)
    assert state["sticky.home"]["weight"].item() == pytest.approx(0.75 * 2 + 0.25 * 6)


def test_without_weight_there_is_no_term():
    state = {"sticky.home": {"weight": torch.ones(1, 1)}}
    terms, _ = turn(Sticky(mu=0), state, weight=5.0, trained=5.0)
    assert terms == {}


def test_reciprocal_ranks():
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    labels = torch.tensor([0, 1, 2])
    assert MeanReciprocalRank()(scores, labels) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
