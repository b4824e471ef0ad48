"""An error of a plugin in a round names the plugin, term, round and client."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from fedbench.engine.run import Run
from fedbench.errors import ConfigError, NonFiniteError, PluginError
from fedbench.hookspecs import hookimpl
from fedbench.types import PerClass, ServerUpdate


def plugin(**hooks) -> type:
    """Make a plugin class from functions by hook name."""
    wrapped = {name: hookimpl(function) for name, function in hooks.items()}
    return dataclass(frozen=True, eq=False)(type("Made", (), wrapped))


@pytest.fixture
def failing(add, run_tiny):
    """Run with a plugin called ``bad`` and return the error's text."""

    def failing(error: type[Exception], cls: type, **given) -> str:
        add(bad=cls)
        with pytest.raises(error) as caught:
            run_tiny(**{"rounds": 1, "extra": {"bad": {}}, **given})
        return str(caught.value)

    return failing


# --- loss terms ----------------------------------------------------------------------------------

SCALAR = "plugin 'bad': loss term 'term' must be a floating-point scalar tensor, got "


@pytest.mark.parametrize(
    ("term", "got"),
    [
        (lambda output: output.logits.mean(0), "shape (3,)"),
        (lambda output: output.logits.mean().reshape(1), "shape (1,)"),
        (lambda output: 0.5, "0.5"),
        (lambda output: None, "None"),
        (lambda output: torch.tensor(3), "shape ()"),
    ],
    ids=["vector", "one element", "float", "none", "integer"],
)
def test_a_loss_term_is_a_floating_scalar_tensor(failing, term, got):
    cls = plugin(local_loss=lambda self, output: {"term": term(output)})
    assert failing(PluginError, cls) == f"{SCALAR}{got} in round 1, client 0"


def test_local_loss_returns_a_mapping(failing):
    cls = plugin(local_loss=lambda self, output: output.logits.mean())
    assert failing(PluginError, cls) == (
        "plugin 'bad': local_loss returned Tensor in round 1, client 0; return a mapping, {} for "
        "no term"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_a_loss_term_that_is_not_finite_names_plugin_term_round_and_client(failing, value):
    def local_loss(self, ctx, output):
        wrong = (ctx.round, ctx.client) == (2, 1)
        return {"term": output.logits.mean() * 0 + (value if wrong else 0)}

    assert failing(NonFiniteError, plugin(local_loss=local_loss), rounds=3) == (
        f"plugin 'bad': loss term 'term' is {value} in round 2, client 1; try a smaller "
        "learning rate"
    )


def test_a_run_that_diverges_says_so(run_tiny):
    with pytest.raises(NonFiniteError, match="try a smaller learning rate"):
        run_tiny(rounds=5, extra={"sgd": {"lr": 1e30}})


def test_no_term_at_all(failing):
    text = failing(PluginError, plugin(local_loss=lambda self: {}), without=["cross_entropy"])
    assert text == "no plugin returned a loss term in round 1, client 0"


# --- the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        ([0, 1, 1], "[0, 1, 1]"),
        ([3, 4], "[3, 4]"),
        ([-1, 0], "[-1, 0]"),
        ([], "[]"),
    ],
)
def test_select_clients_returns_distinct_known_ids(failing, ids, shown):
    cls = plugin(select_clients=lambda self: ids)
    text = f"select_clients must return distinct ids from 0 to 3, got {shown}"
    assert failing(PluginError, cls, without=["uniform"]) == text


def test_clients_are_taken_in_id_order_whatever_the_order_of_selection(add, run_tiny):
    add(odd=plugin(select_clients=lambda self: torch.tensor([3, 0, 2])))
    run = run_tiny(rounds=1, extra={"odd": {}}, without=["uniform"])
    assert run.history[0].clients == [0, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_weights_that_are_not_finite_after_aggregation(failing, value):
    def aggregate(self):
        found = dict((yield))
        found["classifier.bias"] = found["classifier.bias"] * value
        return found

    cls = dataclass(frozen=True, eq=False)(
        type("Made", (), {"aggregate": hookimpl(wrapper=True)(aggregate)})
    )
    assert failing(NonFiniteError, cls) == (
        "weight 'classifier.bias' is not finite after aggregation in round 1"
    )


def test_weights_that_a_server_update_makes_not_finite(failing):
    update = ServerUpdate(weights={"classifier.bias": torch.full((3,), math.nan)})
    assert failing(NonFiniteError, plugin(server_update=lambda self: update)) == (
        "weight 'classifier.bias' is not finite after 'bad' changed it in round 1"
    )


@pytest.mark.parametrize(
    ("hook", "value", "text"),
    [
        (
            "server_update",
            None,
            "plugin 'bad': server_update returned NoneType; return a ServerUpdate",
        ),
        (
            "server_update",
            ServerUpdate(weights={"clasifier.bias": torch.zeros(3)}),
            "plugin 'bad': the model has no weight 'clasifier.bias' (did you mean "
            "'classifier.bias'?)",
        ),
        (
            "server_update",
            ServerUpdate(entries={"x": 1.0}),
            "state 'x' is a float; it must be a tensor, a PerClass, or tensors by name",
        ),
        (
            "server_update",
            ServerUpdate(metrics={"loss.cross_entropy": 1.0}),
            "plugin 'bad': metric 'loss.cross_entropy' is already reported",
        ),
        (
            "broadcast",
            {"x": [1]},
            "broadcast 'x' is a list; it must be a tensor, a PerClass, or tensors by name",
        ),
        (
            "broadcast",
            {"weights": torch.zeros(1)},
            "plugins 'exchange' and 'bad' both return 'weights'",
        ),
        ("broadcast", None, "plugin 'bad': broadcast returned NoneType; return a mapping, {} for "
         "nothing"),
        ("init_server", {"x": "y"}, "state 'x' is a str; it must be a tensor, a PerClass, or "
         "tensors by name"),
        ("inference", {"classifier": None}, "inference rule 'classifier' is built in; choose "
         "another name"),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_server_hooks_return_is_checked(failing, hook, value, text):
    assert failing(PluginError, plugin(**{hook: lambda self: value})) == text


def test_a_weight_whose_name_is_no_text(failing):
    update = ServerUpdate(weights={0: torch.zeros(3)})
    said = failing(PluginError, plugin(server_update=lambda self: update))
    assert said.startswith("plugin 'bad': the model has no weight 0 (known: ")


def test_a_server_hook_that_reads_a_missing_entry(failing):
    cls = plugin(broadcast=lambda self, state: {"x": state.entries["prototype"]})
    assert failing(PluginError, cls) == "no 'prototype' in the server's state (there are none)"


def test_an_unknown_inference_rule(registry, tiny_config):
    config = tiny_config(registry, accuracy={"inference": "prototypes"})
    text = "^accuracy.inference: no plugin of this run provides 'prototypes' .known: classifier.$"
    with pytest.raises(ConfigError, match=text):
        Run(config, registry=registry).run()


# --- clients -------------------------------------------------------------------------------------


def wrapper(function) -> type:
    return dataclass(frozen=True, eq=False)(
        type("Made", (), {"client_update": hookimpl(wrapper=True)(function)})
    )


def test_an_error_in_a_clients_turn_carries_round_and_client(add, run_tiny):
    def client_update(self, ctx):
        trained = yield
        if (ctx.round, ctx.client) == (2, 3):
            raise ZeroDivisionError("by hand")
        return trained

    add(bad=wrapper(client_update))
    with pytest.raises(ZeroDivisionError, match="by hand") as caught:
        run_tiny(rounds=3, extra={"bad": {}})
    assert caught.value.__notes__ == ["in round 2, client 3"]


def test_a_client_that_reads_what_was_not_sent(add, run_tiny):
    def client_update(self, ctx):
        ctx.payload.per_class("weight")
        return (yield)

    add(bad=wrapper(client_update))
    with pytest.raises(PluginError) as caught:
        run_tiny(rounds=1, extra={"bad": {}})
    assert str(caught.value) == "no 'weight' in the broadcast (did you mean 'weights'?)"
    assert caught.value.__notes__ == ["in round 1, client 0"]


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (
            lambda ctx: ctx.upload("x", 1.0),
            "upload 'x' is a float; it must be a tensor, a PerClass, or tensors by name",
        ),
        (
            lambda ctx: ctx.state.update(x=[1]),
            "client state 'x' is a list; it must be a tensor, a PerClass, or tensors by name",
        ),
        (
            lambda ctx: ctx.upload("weights", torch.zeros(1)),
            "two plugins upload 'weights' in round 1, client 0",
        ),
    ],
    ids=["upload", "state", "twice"],
)
def test_what_clients_send_and_keep_is_checked(add, run_tiny, act, text):
    def client_update(self, ctx):
        trained = yield
        act(ctx)
        return trained

    add(bad=wrapper(client_update))
    with pytest.raises(PluginError) as caught:
        run_tiny(rounds=1, extra={"bad": {}})
    assert str(caught.value) == text


# --- data, partition, model ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], "the partition has no clients"),
        ([[0, 1], []], "the partition leaves client 1 without examples"),
        ([[0], [72]], "the partition gives client 1 an index outside 0..71"),
        ([[-1]], "the partition gives client 0 an index outside 0..71"),
    ],
    ids=["none", "empty", "beyond", "negative"],
)
def test_a_partition_is_checked(failing, parts, text):
    cls = plugin(partition=lambda self: [torch.tensor(p).long() for p in parts])
    assert failing(ConfigError, cls, without=["domains"]) == text


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there(registry, tiny_config, device):
    with pytest.raises(ConfigError, match=f"^device '{device}' cannot be used here: ") as caught:
        Run(tiny_config(registry, device=device), registry=registry).run()
    assert "\n" not in str(caught.value)


def test_uploads_of_per_class_rows_survive_the_boundary(add, run_tiny):
    rows = PerClass(torch.tensor([2]), torch.ones(1, 4), torch.tensor([5]))

    def client_update(self, ctx):
        trained = yield
        ctx.upload("rows", rows)
        return trained

    seen = []

    def server_update(self, reports):
        seen.extend(PerClass.concat(r.uploads.per_class("rows") for r in reports).counts.tolist())
        return ServerUpdate()

    add(bad=wrapper(client_update), sink=plugin(server_update=server_update))
    run_tiny(rounds=1, extra={"bad": {}, "sink": {}})
    assert seen == [5, 5, 5, 5]


def test_at_least_one_client_is_left_to_aggregate(failing):
    cls = plugin(receive_uploads=lambda self, results: iter([]))
    assert failing(PluginError, cls) == (
        "receive_uploads left out every client in round 1; at least one result must be left to "
        "aggregate"
    )
