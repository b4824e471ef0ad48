"""Codecs: what an author writes, what travels, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedbench import ClientContext, ClientResult, ConfigError, PluginError, Run, hookimpl, testing
from fedbench.codec import Codec, FeedbackCodec, Slot
from fedbench.types import Encoded, Payload, PerClass, Value, nbytes, tensors

RunTiny = Callable[..., Run]
Add = Callable[..., None]


@dataclass(frozen=True, eq=False)
class Half(Codec):
    """Send 16-bit floats: a whole codec."""

    def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor]:
        return {"half": values.half()}

    def decode(self, parts: Mapping[str, Tensor], slot: Slot) -> Tensor:
        return parts["half"].float()


@dataclass(frozen=True, eq=False)
class Sixteenths(FeedbackCodec):
    """Round to multiples of 1/16, exactly representable in one byte."""

    def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor]:
        return {"codes": (values * 16).round().clamp(-127, 127).to(torch.int8)}

    def decode(self, parts: Mapping[str, Tensor], slot: Slot) -> Tensor:
        return parts["codes"].float() / 16


def there_and_back(
    codec: Codec, uploads: Mapping[str, Value], sent: Mapping[str, Value] | None = None, **ctx: Any
) -> tuple[Mapping[str, Value], Payload]:
    """Return what travels of some uploads, and what the server gets."""
    client = testing.client_context(payload=sent or {}, **ctx)
    client.receive()
    travels = codec.send_uploads(ctx=client, uploads=Payload(uploads, "the uploads"))
    result = replace(testing.client_result(), uploads=Payload(travels, "t"), sent=client.sent)
    (found,) = codec.receive_uploads(results=iter([result]))
    return travels, found.uploads


def model(fill: float) -> dict[str, Tensor]:
    """Return weights for the tiny model, with buffers."""
    fresh = testing.TinyModel().build((1, 8, 8), 3)
    return {
        k: torch.full_like(w, fill) if w.is_floating_point() else w
        for k, w in fresh.state_dict().items()
    }


def test_weights_travel_as_updates_and_buffers_and_integers_as_they_are() -> None:
    base, new = model(100.0), model(100.0 + 2**-10)
    travels, found = there_and_back(Half(), {"weights": new}, {"weights": base})
    encoded = travels["weights"]
    assert isinstance(encoded, Encoded)
    # As a value, 100 + 2^-10 has no 16-bit form; the update 2^-10 has.
    assert torch.equal(encoded.parts["hidden.bias/half"], torch.full((6,), 2**-10).half())
    whole = {name for name in encoded.parts if name.endswith("/")}
    assert whole == {f"norm.{b}/" for b in ("running_mean", "running_var", "num_batches_tracked")}
    assert all(torch.equal(w, new[name]) for name, w in found.weights().items())
    assert list(found.weights()) == list(new)


def test_bytes_are_those_of_the_encoded_form(add: Add, run_tiny: RunTiny) -> None:
    add(half=Half)
    run = run_tiny(rounds=1, extra={"half": {}})
    weights, trained = run.state.weights, dict(run.runtime.model.named_parameters())
    one = sum(w.numel() * (2 if k in trained else w.element_size()) for k, w in weights.items())
    assert run.history[0].bytes_up == {"weights": 4 * one}
    assert run.history[0].bytes_down == {"weights": 4 * nbytes(weights)}


def test_values_that_the_server_did_not_send_are_encoded_themselves() -> None:
    rows = PerClass(torch.tensor([0, 2]), torch.tensor([[1.5], [-3.0]]), torch.tensor([4, 5]))
    lone, named = torch.tensor([[0.25, 8.0]]), {"a": torch.ones(2, 3), "n": torch.tensor([7])}
    uploads: dict[str, Value] = {"rows": rows, "lone": lone, "named": named}
    # The rows of a `PerClass` have no fixed places, so they are never updates.
    sent: dict[str, Value] = {"rows": PerClass(rows.labels, rows.values + 9, rows.counts)}
    sent["named"] = {"a": torch.ones(3, 2)}  # another shape
    travels, found = there_and_back(Half(keys=("rows", "lone", "named")), uploads, sent)
    bytes_ = {key: nbytes(value) for key, value in travels.items()}
    assert bytes_ == {"rows": 2 * 8 + 2 * 2 + 2 * 8, "lone": 4, "named": 6 * 2 + 8}
    assert isinstance(found["rows"], PerClass)
    for key, value in uploads.items():
        pairs = zip(tensors(value), tensors(found[key]), strict=True)
        assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def test_only_the_named_keys_change() -> None:
    uploads: dict[str, Value] = {"a": torch.ones(2), "b": torch.ones(2)}
    travels, _ = there_and_back(Half(keys=("b",)), uploads)
    assert travels["a"] is uploads["a"]
    assert isinstance(travels["b"], Encoded)


def test_types_come_back() -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        _, found = there_and_back(Half(keys=("x",)), {"x": torch.ones(2, 0 + 2, dtype=dtype)})
        assert found.tensor("x").dtype == dtype


def test_nothing_to_encode_is_no_encoded_value() -> None:
    uploads: dict[str, Value] = {"n": torch.arange(3), "empty": torch.zeros(0, 4)}
    travels, found = there_and_back(Half(keys=("n", "empty")), uploads)
    assert dict(travels) == uploads == dict(found)


def test_codecs_nest_and_undo_each_other_in_reverse(add: Add, run_tiny: RunTiny) -> None:
    add(sixteenths=Sixteenths, half=Half)
    both = {"topk": {"ratio": 0.25}, "half": {}}
    run = run_tiny(rounds=2, extra=both)
    alone = run_tiny(rounds=2, extra={"topk": {"ratio": 0.25}})
    parameters = [p.numel() for p in run.runtime.model.parameters()]
    kept = sum(max(1, -(-n // 4)) for n in parameters)
    buffers = nbytes(dict(run.runtime.model.named_buffers()))
    assert run.history[0].bytes_up == {"weights": 4 * (kept * (4 + 2) + buffers)}
    assert alone.history[0].bytes_up == {"weights": 4 * (kept * (4 + 4) + buffers)}
    near = zip(run.state.weights.values(), alone.state.weights.values(), strict=True)
    assert all(torch.allclose(a.float(), b.float(), atol=2e-2) for a, b in near)


def test_error_feedback_loses_nothing_over_rounds() -> None:
    state: Mapping[str, Value] = {}
    generator = torch.Generator().manual_seed(0)
    base, total = torch.zeros(5), torch.zeros(5)
    sent = torch.zeros(5)
    for round in range(1, 7):
        update = torch.randn(5, generator=generator)
        client = testing.client_context(payload={"x": base}, state=state, round=round)
        client.receive()
        codec = Sixteenths(keys=("x",))
        travels = codec.send_uploads(ctx=client, uploads=Payload({"x": base + update}, "u"))
        result = replace(testing.client_result(), uploads=Payload(travels, "t"), sent=client.sent)
        (found,) = codec.receive_uploads(results=iter([result]))
        sent += found.uploads.tensor("x") - base
        total += update
        state = client.state.sealed()
        residual = state["sixteenths.residual/x"]
        assert isinstance(residual, Tensor)
        assert torch.allclose(sent + residual, total, atol=1e-6)
        assert residual.abs().max() <= 1 / 32 + 1e-6


def test_values_and_switched_off_feedback_keep_nothing() -> None:
    for codec, payload in (
        (Sixteenths(keys=("x",)), {}),
        (Sixteenths(keys=("x",), feedback=False), {"x": torch.zeros(2)}),
    ):
        client = testing.client_context(payload=payload)
        client.receive()
        codec.send_uploads(ctx=client, uploads=Payload({"x": torch.full((2,), 0.3)}, "u"))
        assert not client.state


def test_a_key_that_nobody_uploads_is_refused_in_the_first_round(
    add: Add, run_tiny: RunTiny
) -> None:
    add(half=Half)
    with pytest.raises(ConfigError) as caught:
        run_tiny("fedproto", extra={"half": {"keys": ("weigths",)}}, failures={"policy": "skip"})
    assert str(caught.value) == (
        "half.keys: no plugin uploads 'weigths'; uploaded are 'fedproto.prototypes', 'weights' "
        "(did you mean 'weights'?)"
    )
    # Later a client may have nothing to send under a key.
    late = testing.client_context(round=2)
    assert Half().send_uploads(ctx=late, uploads=Payload({}, "u")) == {}


@dataclass(frozen=True, eq=False)
class OneWay(Half):
    """Forgets to decode."""

    @hookimpl
    def receive_uploads(self, results: Iterator[ClientResult]) -> Iterator[ClientResult]:
        return results


def test_who_forgets_to_decode_is_named(add: Add, run_tiny: RunTiny) -> None:
    add(half=Half, oneway=OneWay)
    with pytest.raises(PluginError, match=r"'weights' .* still encoded; plugin 'oneway'"):
        run_tiny(rounds=1, extra={"half": {}, "oneway": {}})


@dataclass(frozen=True, eq=False)
class Slashed(Half):
    """Names a part as no part may be named."""

    def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor]:
        return {"a/b": values}


def test_names_of_parts_are_checked() -> None:
    with pytest.raises(PluginError, match="a part cannot have the name 'a/b'"):
        there_and_back(Slashed(keys=("x",)), {"x": torch.ones(2)})


@dataclass(frozen=True, eq=False)
class Spoils:
    """Uploads weights of which one is NaN, after everything else in the turn."""

    @hookimpl
    def send_uploads(self, uploads: Payload) -> Mapping[str, Value]:
        weights = {k: w.clone() for k, w in uploads.weights().items()}
        weights["hidden.bias"][0] = torch.nan
        return {**uploads, "weights": weights}


def test_an_encoded_form_hides_no_nan(add: Add, run_tiny: RunTiny) -> None:
    add(spoils=Spoils)
    extra = {"spoils": {}, "signsgd": {"scale": "one"}}  # one bit cannot be NaN
    with pytest.raises(Exception, match=r"upload 'weights', tensor 'hidden.bias', is not finite"):
        run_tiny(rounds=1, extra=extra)


def test_what_encode_gets() -> None:
    seen: list[Slot] = []

    @dataclass(frozen=True, eq=False)
    class Looks(Half):
        def encode(self, ctx: ClientContext, values: Tensor, slot: Slot) -> Mapping[str, Tensor]:
            seen.append(slot)
            assert values.shape == (slot.shape[0] * slot.shape[1],)
            return {"half": values.half()}

    linear = nn.Linear(2, 3, bias=False)
    uploads: dict[str, Value] = {"weights": dict(linear.state_dict()), "x": torch.ones(1, 2)}
    sent: dict[str, Value] = {"x": torch.zeros(1, 2)}
    there_and_back(Looks(keys=("weights", "x")), uploads, sent)
    assert seen == [
        Slot("weights", "weight", (3, 2), torch.float32, update=False),
        Slot("x", "", (1, 2), torch.float32, update=True),
    ]
    assert [slot.label for slot in seen] == ["weights/weight", "x"]
