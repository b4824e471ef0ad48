"""What plugins change on the way out is undone on the way in, last change first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from fedbench import PluginError, Run, ServerUpdate, hookimpl
from fedbench.types import ClientJob, ClientResult, Encoded, Payload, Received
from fedbench.values import flatten, kind_of, nbytes, unflatten

ORDER: list[str] = []
CPU = torch.device("cpu")
N = 64 * 6 + 6 + 4 * 6 + 6 * 3 + 3
"""How many numbers the tiny model's weights have, all but one float32; the other is an int64."""


def encoded(weights: Any, form: str) -> Encoded:
    """Return weights as float16, with the previous form's names in text."""
    parts = weights.parts if isinstance(weights, Encoded) else weights
    before = weights.form if isinstance(weights, Encoded) else ""
    return Encoded({n: t.half() for n, t in parts.items()}, f"{form},{before}")


def decoded(value: Any, form: str) -> Any:
    """Undo the last encoding, which must be this one."""
    assert isinstance(value, Encoded)
    last, _, rest = value.form.partition(",")
    assert last == form
    if rest:
        return Encoded(value.parts, rest, value.plugin)
    return {n: t.long() if "num_batches" in n else t.float() for n, t in value.parts.items()}


class Codec:
    """Encodes the weights on both ways, under a name of its own, and decodes them."""

    form = ""

    @hookimpl
    def send_broadcast(self, ctx, state, payload):
        ORDER.append(f"out {self.form}")
        return {**payload, "weights": encoded(payload["weights"], self.form)}

    @hookimpl
    def receive_broadcast(self, ctx, payload):
        ORDER.append(f"in {self.form}")
        return {**payload, "weights": decoded(payload["weights"], self.form)}

    @hookimpl
    def send_uploads(self, ctx, uploads):
        ORDER.append(f"up {self.form}")
        assert not isinstance(ctx.sent["weights"], Encoded)
        return {**uploads, "weights": encoded(uploads["weights"], self.form)}

    @hookimpl
    def receive_uploads(self, ctx, state, results):
        for result in results:
            ORDER.append(f"down {self.form}")
            value = decoded(result.uploads["weights"], self.form)
            yield result.with_uploads({**result.uploads, "weights": value})


@dataclass(frozen=True, eq=False)
class One(Codec):
    """The first codec."""

    form = "one"


@dataclass(frozen=True, eq=False)
class Two(Codec):
    """The second codec."""

    form = "two"


def test_encoded_values_chain_and_are_decoded_in_reverse_order(add, run_tiny) -> None:
    ORDER.clear()
    add(one=One, two=Two)
    run = run_tiny(rounds=1, extra={"one": {}, "two": {}})
    client = ["in two", "in one", "up one", "up two", "down two", "down one"]
    assert ORDER[:2] == ["out one", "out two"]
    assert ORDER[2:] == 4 * client
    assert run.state.weights["hidden.weight"].dtype == torch.float32


def test_the_bytes_are_those_of_what_travels(add, run_tiny) -> None:
    add(one=One)
    run = run_tiny(rounds=1, extra={"one": {}})
    assert run.history[0].bytes_up == run.history[0].bytes_down == {"weights": 4 * 2 * (N + 1)}


class Half:
    """A codec of which some hook is missing."""

    form = "half"


@pytest.mark.parametrize(
    ("out", "where"),
    [("send_broadcast", "the broadcast"), ("send_uploads", "the uploads of client 0")],
)
def test_a_value_that_nobody_decodes_names_the_plugin_that_encoded_it(
    add, run_tiny, out: str, where: str
) -> None:
    hooks = {"form": "bad", out: getattr(Codec, out)}
    add(bad=dataclass(frozen=True, eq=False)(type("Bad", (), hooks)))
    with pytest.raises(PluginError) as caught:
        run_tiny(rounds=1, extra={"bad": {}})
    assert str(caught.value) == (
        f"'weights' in {where} is still encoded; plugin 'bad', which encoded it, has to decode it"
    )


def test_a_plugin_that_uses_an_encoded_value_is_told_whose_it_is() -> None:
    payload = Payload({"x": Encoded({"x": torch.ones(1)}, "", "squeeze")}, "the broadcast")
    for use in (payload.tensor, payload.per_class, payload.weights):
        with pytest.raises(
            PluginError, match=r"^'x' in the broadcast is still encoded; plugin 'squ"
        ):
            use("x")


@pytest.mark.parametrize(
    ("hook", "value", "text"),
    [
        ("send_broadcast", None, "plugin 'bad': send_broadcast returned NoneType; return all val"),
        ("receive_broadcast", [1], "plugin 'bad': receive_broadcast returned list; return all va"),
        ("send_uploads", {1: torch.ones(1)}, "plugin 'bad': a key of send_uploads must be text, "),
        ("send_uploads", {"x": 1.0}, "upload 'x' is a float; it must be a tensor, a PerClass, or"),
        ("send_broadcast", {"x": 1.0}, "broadcast 'x' is a float; it must be a tensor, a PerClas"),
        ("receive_uploads", [], "plugin 'bad': receive_uploads returned list; write it with `for"),
    ],
)
def test_what_the_ways_return_is_checked(add, run_tiny, hook: str, value: Any, text: str) -> None:
    hooks = {hook: hookimpl(lambda self: value)}
    add(bad=dataclass(frozen=True, eq=False)(type("Bad", (), hooks)))
    with pytest.raises(PluginError) as caught:
        run_tiny(rounds=1, extra={"bad": {}})
    assert str(caught.value).startswith(text)


SENT: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []


@dataclass(frozen=True, eq=False)
class Difference:
    """Uploads the difference from what was sent, and adds that again on the server."""

    @hookimpl
    def receive_broadcast(self, payload):
        shifted = {n: t + 1 if t.is_floating_point() else t for n, t in payload.weights().items()}
        return {**payload, "weights": shifted}

    @hookimpl
    def send_uploads(self, ctx, uploads):
        base = ctx.sent.weights()
        assert all(t.device == CPU for t in uploads.weights().values())
        difference = {n: t.double() - base[n] for n, t in uploads.weights().items()}
        return {**uploads, "weights": difference}

    @hookimpl
    def receive_uploads(self, state, results):
        for result in results:
            base = result.sent.weights()
            SENT.append((base, state.weights))
            weights = {
                n: (t + base[n]).to(base[n].dtype) for n, t in result.uploads.weights().items()
            }
            yield result.with_uploads({**result.uploads, "weights": weights})


@dataclass(frozen=True, eq=False)
class Shift:
    """Receives as `Difference` does, and sends plain weights."""

    receive_broadcast = Difference.receive_broadcast


def test_an_update_is_the_difference_from_what_the_server_sent(add, run_tiny) -> None:
    """Not from what ``receive_broadcast`` made of it."""
    SENT.clear()
    add(difference=Difference, shift=Shift)
    one = run_tiny(rounds=2, extra={"difference": {}})
    other = run_tiny(rounds=2, extra={"shift": {}})
    for name, value in one.state.weights.items():
        torch.testing.assert_close(value, other.state.weights[name])
    assert len(SENT) == 8
    assert all(torch.equal(base[name], now[name]) for base, now in SENT for name in base)


def test_an_encoded_value_survives_every_transport() -> None:
    value = Encoded({"q": torch.arange(3), "scale": torch.ones(())}, "a|b/ü,1", "mine")
    (found,) = unflatten(flatten({"key|1": value})).values()
    assert isinstance(found, Encoded)
    assert (found.form, found.plugin) == (value.form, value.plugin)
    assert {n: t.tolist() for n, t in found.parts.items()} == {"q": [0, 1, 2], "scale": 1.0}
    assert nbytes(value) == 3 * 8 + 4, "text costs nothing"
    assert "|" not in kind_of("key", value)


# --- partial weights, and what the server keeps for a round --------------------------------------


@dataclass(frozen=True, eq=False)
class Local:
    """Leaves the classifier out, both ways."""

    @hookimpl
    def send_broadcast(self, payload):
        return {**payload, "weights": body(payload.weights())}

    @hookimpl
    def send_uploads(self, uploads):
        return {**uploads, "weights": body(uploads.weights())}


def body(weights: Any) -> dict[str, torch.Tensor]:
    return {n: t for n, t in weights.items() if not n.startswith("classifier.")}


@dataclass(frozen=True, eq=False)
class Begins:
    """Compares the model that a turn begins with to the run's initial weights."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        ctx.metric("bias", ctx.model.classifier.bias.sum())
        return (yield)


def test_weights_that_do_not_travel_begin_at_their_initial_values_and_stay_on_the_server(
    add, run_tiny
) -> None:
    add(local=Local, begins=Begins)
    run = run_tiny(rounds=3, extra={"local": {}, "begins": {}})
    initial = run.runtime.initial
    for name in ("classifier.weight", "classifier.bias"):
        assert torch.equal(run.state.weights[name], initial[name])
    assert not torch.equal(run.state.weights["hidden.weight"], initial["hidden.weight"])
    start = pytest.approx(float(initial["classifier.bias"].sum()))
    assert [r.metrics["bias"] for r in run.history] == [start] * 3


@dataclass(frozen=True, eq=False)
class Chooses:
    """Takes the first client's weights and says whose they are."""

    @hookimpl
    def aggregate(self, results):
        first = next(results)
        entries = {"chosen": torch.tensor(first.client)}
        return ServerUpdate(entries, first.uploads.weights(), {"chosen": first.client})


@dataclass(frozen=True, eq=False)
class Takes:
    """Writes what belongs to `Chooses`."""

    @hookimpl
    def server_update(self):
        return ServerUpdate(entries={"chosen": torch.tensor(-1)})


def test_an_aggregator_may_keep_state_and_report_numbers(add, run_tiny) -> None:
    add(chooses=Chooses, takes=Takes)
    run = run_tiny(extra={"chooses": {}}, without=["mean"])
    assert int(run.state.entries.tensor("chosen")) == 0
    assert [r.metrics["chosen"] for r in run.history] == [0, 0]
    with pytest.raises(PluginError, match=r"^plugin 'takes' writes 'chosen', which belongs to 'ch"):
        run_tiny(extra={"chooses": {}, "takes": {}}, without=["mean"])


BEFORE: list[tuple[Any, Any]] = []


@dataclass(frozen=True, eq=False)
class Momentum:
    """Adds again what aggregation changed: w + (w - w_before)."""

    @hookimpl
    def server_update(self, state, before):
        BEFORE.append((before, state.weights))
        return ServerUpdate(
            weights={
                "classifier.bias": 2 * state.weights["classifier.bias"] - before["classifier.bias"]
            }
        )


def test_a_server_optimiser_sees_the_weights_from_before_the_round(add, run_tiny) -> None:
    BEFORE.clear()
    add(momentum=Momentum)
    run = run_tiny(rounds=2, extra={"momentum": {}})
    (first, mean), (second, _) = BEFORE
    assert torch.equal(first["classifier.bias"], run.runtime.initial["classifier.bias"])
    expected = 2 * mean["classifier.bias"] - first["classifier.bias"]
    assert torch.equal(second["classifier.bias"], expected)


HELD: list[list[str]] = []


@dataclass(frozen=True, eq=False)
class Folds:
    """Sums a model-sized key while results arrive, and hands on results without it."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx):
        trained = yield
        ctx.upload("folds.delta", {"w": torch.full((6,), ctx.client + 1.0)})
        return trained

    @hookimpl
    def receive_uploads(self, ctx, results) -> Iterator[Any]:
        assert ctx.scratch == {}, "of this round alone"
        total = torch.zeros(6)
        for result in results:
            total += result.uploads.weights("folds.delta")["w"]
            ctx.scratch["folds"] = total
            rest = {k: v for k, v in result.uploads.items() if k != "folds.delta"}
            yield result.with_uploads(rest)

    @hookimpl
    def server_update(self, ctx, reports):
        HELD.append(sorted({key for report in reports for key in report.uploads}))
        return ServerUpdate(metrics={"sum": float(ctx.scratch["folds"][0])})


def test_a_key_that_is_folded_as_results_arrive_is_counted_and_not_kept(add, run_tiny) -> None:
    HELD.clear()
    add(folds=Folds)
    run = run_tiny(rounds=2, extra={"folds": {}})
    assert [r.metrics["sum"] for r in run.history] == [1 + 2 + 3 + 4] * 2
    assert HELD == [[], []]
    assert run.history[0].bytes_up["folds.delta"] == 4 * 6 * 4


@dataclass(frozen=True, eq=False)
class Refuses:
    """Leaves odd clients out of the round."""

    @hookimpl
    def receive_uploads(self, results):
        return (result for result in results if result.client % 2 == 0)


def test_clients_that_are_left_out_are_in_no_mean(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    @dataclass(frozen=True, eq=False)
    class Even:
        @hookimpl
        def select_clients(self):
            return [0, 2]

    add(refuses=Refuses, even=Even)
    run = run_tiny(rounds=1, extra={"refuses": {}})
    other = run_tiny(rounds=1, extra={"even": {}}, without=["uniform"])
    assert run.result()["weights_sha256"] == other.result()["weights_sha256"]
    assert run.history[0].metrics == other.history[0].metrics
    assert run.history[0].bytes_up["weights"] == 2 * other.history[0].bytes_up["weights"]


def test_a_turn_copies_nothing_of_a_broadcast_that_no_plugin_reads(
    run_tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = run_tiny("fedavg", rounds=1).runtime
    read: list[str] = []
    monkeypatch.setattr(Received, "__getitem__", lambda self, key: read.append(key))
    found = runtime.run_client(ClientJob(1, 0, {}), {"weights": runtime.initial})
    assert isinstance(found, ClientResult)
    assert read == []
