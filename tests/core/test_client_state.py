"""What a client keeps: sealed when it is assigned, its own when it is read."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedbench.client_state import ClientState
from fedbench.errors import PluginError
from fedbench.types import PerClass, Value, tensors
from fedbench.watching import Watch


def rows(value: float) -> PerClass:
    ones = torch.ones(2, dtype=torch.int64)
    return PerClass(ones, torch.full((2, 3), value), ones)


VALUES: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.ones(3),
    "rows": lambda: rows(1.0),
    "tensors by name": lambda: {"a": torch.ones(3), "b": torch.ones(2, 2)},
    "an own mapping": lambda: nn.ParameterDict({"a": torch.ones(3)}).state_dict(),
}

ASSIGN: dict[str, Callable[[ClientState, Any], object]] = {
    "=": lambda state, value: state.__setitem__("k", value),
    "update": lambda state, value: state.update(k=value),
    "|=": lambda state, value: state.__ior__({"k": value}),
    "setdefault": lambda state, value: state.setdefault("k", value),
    "replace": lambda state, value: state.replace({"k": value}),
}


def numbers(value: Value) -> list[Any]:
    return [(name, tensor.tolist()) for name, tensor in tensors(value)]


def overwrite(value: Value) -> None:
    """Write into every tensor of a value."""
    for _, tensor in tensors(value):
        tensor.data.fill_(9)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("way", ASSIGN)
def test_what_is_kept_is_the_value_at_its_assignment(kind: str, way: str) -> None:
    state, value = ClientState({}), VALUES[kind]()
    ASSIGN[way](state, value)
    overwrite(value)
    assert numbers(state["k"]) == numbers(state.sealed()["k"]) == numbers(VALUES[kind]())


@pytest.mark.parametrize("kind", VALUES)
def test_what_is_kept_has_no_graph_and_is_contiguous_on_the_cpu(kind: str) -> None:
    state = ClientState({})
    live = torch.ones(3, 2, requires_grad=True)
    state["k"] = (2 * live).T
    (kept,) = (t for _, t in tensors(state.sealed()["k"]))
    assert not kept.requires_grad
    assert kept.is_contiguous()


def test_a_model_that_trains_on_does_not_change_its_kept_weights() -> None:
    model, state = nn.Linear(2, 2), ClientState({})
    before = copy.deepcopy(model.state_dict())
    state["k"] = model.state_dict()
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(state.sealed()["k"]["weight"], before["weight"])  # type: ignore[index,arg-type]


@pytest.mark.parametrize("kind", VALUES)
def test_writing_into_what_was_read_changes_what_is_kept_and_nothing_else(kind: str) -> None:
    last = {"k": VALUES[kind]()}
    state = ClientState(last)
    overwrite(state["k"])
    assert numbers(last["k"]) == numbers(VALUES[kind]())
    for value in (state["k"], state.sealed()["k"]):
        assert all(bool((tensor == 9).all()) for _, tensor in tensors(value))


def test_what_was_read_is_no_longer_connected_after_the_turn() -> None:
    state = ClientState({"k": torch.ones(2)})
    read = state["k"]
    kept = state.sealed()
    overwrite(read)
    assert numbers(kept["k"]) == [("", [1, 1])]


def test_a_tensor_put_into_a_mapping_that_was_read_is_sealed_too() -> None:
    state = ClientState({"k": {"a": torch.zeros(1), "b": torch.zeros(1)}})
    live = torch.ones(1)
    inner: Any = state["k"]
    inner["a"] = live
    inner.update(b=live)
    inner |= {"c": live}
    assert torch.equal(inner.setdefault("d", live), live)
    overwrite(live)
    assert numbers(state.sealed()["k"]) == [(name, [1]) for name in "abcd"]
    with pytest.raises(PluginError, match="client state 'k': 'e' is not a tensor"):
        inner["e"] = {"deeper": live}


def test_setdefault_returns_what_is_kept() -> None:
    state, default = ClientState({}), torch.zeros(1)
    state.setdefault("turns", default).add_(1)
    assert (state.sealed()["turns"], default) == (1, 0)


def test_it_is_a_mapping_like_any_other() -> None:
    state = ClientState({"a": torch.ones(1)})
    state["b"] = torch.zeros(1)
    assert (list(state), len(state), "a" in state, "c" in state) == (["a", "b"], 2, True, False)
    assert sorted(state | {"c": torch.ones(1)}) == ["a", "b", "c"]
    assert state.get("c", 5) == 5
    with pytest.raises(KeyError, match="'c'"):
        state["c"]
    assert numbers(state.pop("a")) == [("", [1])]
    del state["b"]
    assert state.sealed() == {}


WRONG: list[tuple[Any, str]] = [
    (1.5, "client state 'k' is a float; it must be a tensor, a PerClass, or tensors by name"),
    (None, "client state 'k' is a NoneType; it must be"),
    ([torch.ones(1)], "client state 'k' is a list; it must be"),
    ({}, "client state 'k' is an empty mapping; leave the key out instead"),
    ({"a": {"b": torch.ones(1)}}, "client state 'k': 'a' is not a tensor; a mapping holds"),
    ({1: torch.ones(1)}, "client state 'k': 1 is not a tensor; a mapping holds tensors by name"),
]


@pytest.mark.parametrize("way", ASSIGN)
@pytest.mark.parametrize(("value", "text"), WRONG, ids=[text[16:40] for _, text in WRONG])
def test_a_wrong_value_is_refused_where_it_is_assigned(way: str, value: Any, text: str) -> None:
    with pytest.raises(PluginError, match=re.escape(text)):
        ASSIGN[way](ClientState({}), value)


def test_a_key_must_be_text() -> None:
    with pytest.raises(PluginError, match="a key of the client state must be text, got 3"):
        ClientState({})[3] = torch.ones(1)  # type: ignore[index]


class Allocator:
    """Allocates as a pool does, and counts the copies."""

    def __init__(self) -> None:
        self.made: list[Tensor] = []

    def __call__(self, like: Tensor) -> Tensor:
        self.made.append(torch.empty_like(like, memory_format=torch.contiguous_format))
        return self.made[-1]


def test_a_value_is_copied_once_into_the_memory_that_is_given() -> None:
    empty = Allocator()
    old = torch.zeros(2)
    state = ClientState({"old": old}, empty=empty)
    state["new"] = torch.ones(2)
    kept = state.sealed()
    assert [kept["new"].data_ptr()] == [t.data_ptr() for t in empty.made]  # type: ignore[union-attr]
    assert kept["old"] is old, "nobody read it, so nobody can have changed it"


def test_a_watch_sees_what_is_assigned() -> None:
    seen = []

    class Noting(Watch):
        def keep(self, where: str, key: str, value: Value) -> None:
            seen.append((where, key, value))

    value = torch.ones(1)
    ClientState({}, where="round 1, client 2", watch=Noting())["k"] = value
    assert seen == [("round 1, client 2", "k", value)]
