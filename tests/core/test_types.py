"""Values that server and clients exchange: rows per class, sealing, sizes, digests, payloads."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedbench.errors import PluginError
from fedbench.types import Payload, PerClass, Received, flatten, nbytes, seal, sha256, unflatten

CPU = torch.device("cpu")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.complex64)


def rows(*items: tuple[int, list[float], int]) -> PerClass:
    """Return a PerClass made from (label, row, count) items."""
    labels, values, counts = zip(*items, strict=True)
    return PerClass(torch.tensor(labels), torch.tensor(values), torch.tensor(counts))


def as_dict(value: PerClass) -> dict[int, tuple[list[float], int]]:
    """Return a PerClass that has one row per class as {label: (row, count)}."""
    labels = value.labels.tolist()
    assert len(set(labels)) == len(labels)
    return dict(
        zip(labels, zip(value.values.tolist(), value.counts.tolist(), strict=True), strict=True)
    )


class TestPerClass:
    def test_means_are_per_class_present_with_counts(self):
        values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 0.0]])
        means = PerClass.means(values, torch.tensor([4, 4, 1]))
        assert as_dict(means) == {1: ([10.0, 0.0], 1), 4: ([2.0, 3.0], 2)}

    def test_means_of_any_row_shape(self):
        values = torch.arange(12.0).reshape(3, 2, 2)
        means = PerClass.means(values, torch.tensor([0, 0, 2]))
        assert means.values.shape == (2, 2, 2)
        assert torch.equal(means.values[0], values[:2].mean(0))

    def test_concat_keeps_all_rows_in_order(self):
        both = PerClass.concat([rows((2, [1.0], 3)), rows((2, [5.0], 1), (0, [7.0], 2))])
        assert both.labels.tolist() == [2, 2, 0]
        assert both.values.flatten().tolist() == [1.0, 5.0, 7.0]
        assert both.counts.tolist() == [3, 1, 2]
        assert len(both) == 3

    def test_average_is_plain_or_by_count(self):
        many = rows((2, [1.0], 3), (0, [7.0], 2), (2, [5.0], 1))
        assert as_dict(many.average()) == {0: ([7.0], 2), 2: ([3.0], 4)}
        assert as_dict(many.average(by_count=True)) == {0: ([7.0], 2), 2: ([2.0], 4)}

    @given(st.data(), st.booleans())
    def test_average_is_what_a_loop_computes(self, data, by_count):
        n = data.draw(st.integers(1, 12))
        labels = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
        counts = data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
        values = torch.randn(n, 3, generator=torch.Generator().manual_seed(n))
        got = PerClass(torch.tensor(labels), values, torch.tensor(counts)).average(by_count)
        assert got.labels.tolist() == sorted(set(labels))
        for label, row, count in zip(got.labels.tolist(), got.values, got.counts, strict=True):
            mine = [i for i in range(n) if labels[i] == label]
            weights = [counts[i] if by_count else 1 for i in mine]
            total = sum(w * values[i] for w, i in zip(weights, mine, strict=True))
            torch.testing.assert_close(row, total / sum(weights))
            assert int(count) == sum(counts[i] for i in mine)

    def test_average_of_means_by_count_is_the_mean_of_all(self):
        values = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        labels = torch.arange(20) % 3
        parts = [PerClass.means(values[s], labels[s]) for s in (slice(0, 13), slice(13, 20))]
        together = PerClass.concat(parts).average(by_count=True)
        whole = PerClass.means(values, labels)
        torch.testing.assert_close(together.values, whole.values)
        assert torch.equal(together.counts, whole.counts)

    @pytest.mark.parametrize(
        ("labels", "values", "counts"),
        [
            ((2,), (3, 2), (3,)),
            ((3,), (3, 2), (2,)),
            ((3,), (2, 3), (3,)),
            ((3, 1), (3, 2), (3,)),
            ((3,), (3, 2), (3, 1)),
            ((), (3, 2), (3,)),
            ((), (), ()),
        ],
    )
    def test_rows_must_agree(self, labels, values, counts):
        text = (
            "PerClass needs labels (n,), values (n, ...), counts (n,) with the same n; got "
            f"{labels}, {values}, {counts}"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            PerClass(torch.zeros(labels).long(), torch.zeros(values), torch.zeros(counts).long())

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_rows_may_have_any_floating_type(self, dtype):
        made = PerClass(torch.tensor([1]), torch.ones(1, 2, dtype=dtype), torch.tensor([3]))
        assert made.values.dtype == dtype

    @pytest.mark.parametrize("name", ["labels", "counts"])
    @pytest.mark.parametrize("dtype", [*FLOATS, *OTHERS])
    def test_labels_and_counts_are_int64(self, name, dtype):
        parts = {"labels": torch.tensor([1]), "values": torch.ones(1), "counts": torch.tensor([3])}
        parts[name] = parts[name].to(dtype)
        text = f"PerClass: {name} must be int64, got {str(dtype)[6:]}; use {name}.long()"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            PerClass(**parts)

    @pytest.mark.parametrize("dtype", [torch.int64, *OTHERS])
    def test_rows_are_floating(self, dtype):
        text = f"PerClass: values must be floating-point, got {str(dtype)[6:]}; use values.float()"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            PerClass(torch.tensor([1]), torch.ones(1, 2).to(dtype), torch.tensor([3]))

    @pytest.mark.parametrize("name", ["labels", "values", "counts"])
    @pytest.mark.parametrize("given", [[1], 1, None, np.ones(1)], ids=lambda g: type(g).__name__)
    def test_all_three_are_tensors(self, name, given):
        parts = {"labels": torch.tensor([1]), "values": torch.ones(1), "counts": torch.tensor([3])}
        text = f"PerClass: {name} must be a tensor, got {type(given).__name__}"
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            PerClass(**{**parts, name: given})


class TestSeal:
    @pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"a": t}], ids=["tensor", "mapping"])
    def test_a_sealed_value_is_detached_and_shares_no_memory(self, wrap):
        live = torch.ones(3, requires_grad=True)
        sealed = seal(wrap(live * 1))
        tensor = sealed if isinstance(sealed, torch.Tensor) else sealed["a"]
        assert not tensor.requires_grad
        with torch.no_grad():
            live.zero_()
        assert tensor.tolist() == [1, 1, 1]

    def test_a_view_is_copied_too(self):
        base = torch.arange(6.0)
        sealed = seal(base[:2])
        base.zero_()
        assert sealed.tolist() == [0, 1]
        assert sealed.untyped_storage().nbytes() == 2 * 4

    def test_per_class_is_copied_whole(self):
        live = rows((1, [2.0], 3))
        sealed = seal(live)
        for tensor in (live.labels, live.values, live.counts):
            tensor.zero_()
        assert as_dict(sealed) == {1: ([2.0], 3)}

    @pytest.mark.parametrize("value", [1.5, [1, 2], None, "text"])
    def test_anything_else_is_refused_by_name(self, value):
        kind = type(value).__name__
        with pytest.raises(PluginError) as caught:
            seal(value, "upload 'x'")
        assert str(caught.value) == (
            f"upload 'x' is a {kind}; it must be a tensor, a PerClass, or tensors by name"
        )

    @pytest.mark.parametrize("value", [{"a": 1.0}, {3: torch.zeros(1)}])
    def test_a_mapping_holds_tensors_by_name(self, value):
        with pytest.raises(PluginError) as caught:
            seal(value, "upload 'x'")
        wrong = next(iter(value))
        assert str(caught.value) == (
            f"upload 'x': {wrong!r} is not a tensor; a mapping holds tensors by name"
        )


def test_bytes_count_every_tensor():
    assert nbytes(torch.zeros(3, 4)) == 48
    assert nbytes(torch.zeros(3, dtype=torch.float64)) == 24
    assert nbytes({"a": torch.zeros(2), "b": torch.zeros(5, dtype=torch.uint8)}) == 13
    # labels 2 x 8, values 2 x 3 x 4, counts 2 x 8
    assert nbytes(rows((0, [1.0, 2.0, 3.0], 1), (1, [1.0, 2.0, 3.0], 1))) == 56
    # a view counts what it shows, not the storage behind it
    assert nbytes(torch.zeros(100)[:2]) == 8


class TestDigest:
    BASE = torch.tensor([1.0, 2.0])

    def test_it_depends_on_content_not_on_order_identity_or_layout(self):
        other = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        one = sha256({"a": self.BASE, "b": other})
        assert one == sha256({"b": other.t().contiguous().t(), "a": self.BASE.clone()})

    @pytest.mark.parametrize(
        "changed",
        [
            {"a": torch.nextafter(BASE, BASE + 1)},
            {"b": BASE},
            {"a": BASE.double()},
            {"a": BASE.reshape(1, 2)},
            {"a": BASE.flip(0)},
            {"a": -BASE},
            {},
            {"a": BASE, "b": torch.zeros(0)},
        ],
        ids=["one bit", "name", "dtype", "shape", "order", "sign", "nothing", "more"],
    )
    def test_it_changes_with(self, changed):
        assert sha256({"a": self.BASE}) != sha256(changed)

    def test_scalars_and_empty_tensors_have_one(self):
        values = {"count": torch.tensor(3), "none": torch.zeros(0, 4), "p": rows((0, [1.0], 1))}
        assert len(sha256(values)) == 64


VALUES = {"prototypes": rows((0, [1.0], 1)), "mean": torch.ones(2), "w": {"a": torch.ones(1)}}


class TestPayload:
    def test_a_missing_key_names_the_nearest(self):
        with pytest.raises(PluginError) as caught:
            Payload(VALUES, "the broadcast")["protoypes"]
        assert str(caught.value) == "no 'protoypes' in the broadcast (did you mean 'prototypes'?)"

    def test_a_missing_key_without_a_near_one_lists_all(self):
        with pytest.raises(PluginError, match=r"no 'x' in here \(known: mean, prototypes, w\)$"):
            Payload(VALUES, "here")["x"]
        with pytest.raises(PluginError, match=r"no 'x' in here \(there are none\)$"):
            Payload({}, "here")["x"]

    def test_asking_for_a_missing_key_without_looking_it_up_is_not_an_error(self):
        payload = Payload(VALUES, "here")
        assert "mean" in payload
        assert "x" not in payload
        assert payload.get("x") is None
        assert payload.get("mean") is VALUES["mean"]
        assert list(payload) == ["prototypes", "mean", "w"]
        assert len(payload) == 3

    def test_typed_access_checks_the_kind(self):
        payload = Payload(VALUES, "here")
        assert payload.tensor("mean").shape == (2,)
        assert len(payload.per_class("prototypes")) == 1
        assert list(payload.weights("w")) == ["a"]
        for call, key, text in (
            (payload.tensor, "w", "'w' in here is a dict, not a tensor"),
            (payload.per_class, "mean", "'mean' in here is a Tensor, not a PerClass"),
            (payload.weights, "mean", "'mean' in here is a Tensor, not tensors by name"),
        ):
            with pytest.raises(PluginError) as caught:
                call(key)
            assert str(caught.value) == text

    def test_writing_into_a_received_value_reaches_nobody_else(self):
        sent = {"mean": torch.ones(2), "w": {"a": torch.ones(1)}, "p": rows((0, [1.0], 1))}
        first, second = Received(sent, CPU), Received(sent, CPU)
        first.tensor("mean").zero_()
        first.weights("w")["a"].zero_()
        first.per_class("p").values.zero_()
        for payload in (second, Payload(sent, "the server")):
            assert payload.tensor("mean").tolist() == [1, 1]
            assert payload.weights("w")["a"].tolist() == [1]
            assert payload.per_class("p").values.tolist() == [[1]]
        # within one turn the client sees its own change
        assert first.tensor("mean").tolist() == [0, 0]


def test_flatten_and_unflatten_are_inverse():
    values = {
        "a|b": torch.arange(3),
        "p": rows((1, [2.0], 3)),
        "w": {"x.weight": torch.ones(2), "": torch.zeros(1)},
    }
    back = unflatten(flatten(values))
    assert list(back) == list(values)
    assert sha256(back) == sha256(values)
    assert isinstance(back["p"], PerClass)
    with pytest.raises(PluginError, match="'w' is an empty mapping; leave the key out instead"):
        flatten({"w": {}})
