"""Class anchors are found by what plugins state, in any of their forms."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from fedbench import (
    ClientContext,
    PerClass,
    PluginError,
    Run,
    ServerContext,
    ServerUpdate,
    Value,
    hookimpl,
)
from fedbench.anchors import class_anchors
from fedbench.values import Payload

ROWS = PerClass(torch.tensor([2, 0]), torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([5, 6]))


def rows(found: PerClass | None) -> list[tuple[int, list[float]]]:
    assert found is not None
    return list(zip(found.labels.tolist(), found.values.tolist(), strict=True))


def test_every_form_becomes_rows_with_labels() -> None:
    one = torch.tensor([[1.0, 2], [3, 4]])
    several = torch.tensor([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]])
    payload = Payload({"one": one, "several": several, "rows": ROWS, "other": one}, "it")
    assert rows(class_anchors(payload, ["one"])) == [(0, [1, 2]), (1, [3, 4])]
    assert rows(class_anchors(payload, ["several"])) == [
        (0, [1, 2]), (0, [3, 4]), (1, [5, 6]), (1, [7, 8])
    ]  # fmt: skip
    assert rows(class_anchors(payload, ["rows"])) == [(2, [1, 2]), (0, [3, 4])]
    both = rows(class_anchors(payload, ["rows", "one"]))
    assert both == [(2, [1, 2]), (0, [3, 4]), (0, [1, 2]), (1, [3, 4])]


def test_a_payload_without_the_keys_has_no_anchors() -> None:
    assert class_anchors(Payload({"one": torch.ones(2, 2)}, "it"), []) is None
    assert class_anchors(Payload({"one": torch.ones(2, 2)}, "it"), ["two"]) is None


@pytest.mark.parametrize(
    "value", [torch.ones(3), torch.ones(1, 1, 1, 1), {"weight": torch.ones(2, 2)}]
)
def test_a_value_of_another_form_is_an_error(value: Value) -> None:
    with pytest.raises(PluginError, match=r"^'mine' is stated as class anchors, so it must be"):
        class_anchors(Payload({"mine": value}, "it"), ["mine"])


@dataclass(frozen=True, eq=False)
class Centres:
    """A third party's anchors, declared in one line."""

    anchors: ClassVar[tuple[str, ...]] = ("centres",)

    @hookimpl
    def broadcast(self) -> Mapping[str, Value]:
        return {"centres": torch.eye(3, 6)}


SEEN: list[PerClass | None] = []


@dataclass(frozen=True, eq=False)
class Looks:
    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        SEEN.append(ctx.anchors)
        return (yield)

    @hookimpl
    def server_update(self, ctx: ServerContext) -> ServerUpdate:
        SEEN.append(ctx.anchors)
        return ServerUpdate()


def test_plugins_of_both_sides_see_the_anchors_of_any_plugin(
    run_tiny: Callable[..., Run], add: Callable[..., None]
) -> None:
    SEEN.clear()
    add(centres=Centres, looks=Looks)
    run = run_tiny("fedavg", rounds=1, executor="inline", extra={"looks": {}, "centres": {}})
    assert len(SEEN) == len(run.history[0].clients) + 1
    expected = [(c, torch.eye(3, 6)[c].tolist()) for c in range(3)]
    assert all(rows(found) == expected for found in SEEN)


def test_a_run_without_them_has_none(
    run_tiny: Callable[..., Run], add: Callable[..., None]
) -> None:
    SEEN.clear()
    add(looks=Looks)
    run_tiny("fedavg", rounds=1, executor="inline", extra={"looks": {}})
    assert {*SEEN} == {None}
