"""Options are plain dataclasses: checked with bounds, described with types and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from fedbench import options
from fedbench.errors import ConfigError

TOO_LARGE = "the number is too large; runs compute in float32, which ends at 3.4e+38"


@dataclass(frozen=True, eq=False)
class Inner:
    depth: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, eq=False)
class Example:
    """Every kind of option."""

    name: Annotated[str, Field(description="what to call it")]
    lr: Annotated[float, Field(gt=0, le=1, description="learning rate")] = 0.1
    steps: Annotated[int, Field(ge=1)] = 5
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    sizes: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2)
    each: Annotated[int, Field(ge=1)] | dict[str, Annotated[int, Field(ge=0)]] = 2
    cap: Annotated[float, Field(gt=0)] | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.flag and self.kind == "b":
            raise ValueError("flag does not go with kind b")


def where(path: tuple[str, ...]) -> str:
    return "AT " + ".".join(path)


def build(**given: Any) -> Example:
    return options.build(Example, {"name": "x", **given}, where)


def test_what_is_given_is_set_and_the_rest_is_default():
    made = build(lr=1, sizes=[3], each={"a": 0}, inner={"depth": 2})
    assert (made.name, made.lr, made.steps, made.sizes) == ("x", 1.0, 5, (3,))
    assert (made.each, made.cap, made.inner.depth) == ({"a": 0}, None, 2)
    assert isinstance(made.lr, float)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"lrr": 1}, "AT lrr: unknown option (did you mean 'lr'?)"),
        ({"inner": {"dept": 1}}, "AT inner.dept: unknown option (did you mean 'depth'?)"),
        ({"lr": float("nan")}, "AT lr: nan is not a finite number"),
        ({"cap": float("inf")}, "AT cap: inf is not a finite number"),
        ({"lr": 10**400}, f"AT lr: {TOO_LARGE}"),
        ({"lr": 1e300}, f"AT lr: {TOO_LARGE}"),
        ({"cap": -3.5e38}, f"AT cap: {TOO_LARGE}"),
        ({"steps": float("-inf")}, "AT steps: -inf is not a finite number"),
        ({"sizes": [1, float("nan")]}, "AT sizes.1: nan is not a finite number"),
        ({"inner": {"depth": float("nan")}}, "AT inner.depth: nan is not a finite number"),
        ({"lr": "0.1"}, "AT lr: input should be a valid number, got '0.1'"),
        ({"lr": True}, "AT lr: input should be a valid number, got True"),
        ({"lr": None}, "AT lr: input should be a valid number, got None"),
        ({"lr": 0}, "AT lr: input should be greater than 0, got 0"),
        ({"lr": 2}, "AT lr: input should be less than or equal to 1, got 2"),
        ({"steps": 2.0}, "AT steps: input should be a valid integer, got 2.0"),
        ({"steps": True}, "AT steps: input should be a valid integer, got True"),
        ({"flag": 1}, "AT flag: input should be a valid boolean, got 1"),
        ({"kind": "c"}, "AT kind: input should be 'a' or 'b', got 'c'"),
        ({"sizes": [1, "x"]}, "AT sizes.1: input should be a valid integer, got 'x'"),
        ({"inner": {"depth": -1}}, "AT inner.depth: input should be greater than or equal to 0, "),
        ({"inner": 3}, "AT inner: input should be an object, got 3"),
        ({"cap": 0}, "AT cap: input should be greater than 0, got 0"),
        ({"each": 0}, "AT each: input should be greater than or equal to 1, got 0"),
        ({"each": {"a": -1}}, "AT each.a: input should be greater than or equal to 0, got -1"),
        ({"flag": True, "kind": "b"}, "AT : flag does not go with kind b"),
    ],
    ids=str,
)
def test_refused(given, error):
    with pytest.raises(ConfigError) as caught:
        build(**given)
    assert str(caught.value).startswith(error)


@dataclass(frozen=True, eq=False)
class Nested:
    maybe: Inner | None = None
    some: tuple[Inner, ...] = ()
    named: Annotated[dict[str, Inner], Field(max_length=2)] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"maybe": {"dept": 1}}, "maybe.dept"),
        ({"some": [{"depth": 1}, {"dept": 1}]}, "some.1.dept"),
        ({"named": {"a": {"dept": 1}}}, "named.a.dept"),
    ],
)
def test_unknown_keys_are_refused_wherever_a_group_of_options_is(given, place):
    with pytest.raises(ConfigError, match=rf"^AT {place}: unknown option \(did you mean 'depth'"):
        options.build(Nested, given, where)


def test_a_required_option_is_named():
    with pytest.raises(ConfigError) as caught:
        options.build(Example, {}, where)
    assert str(caught.value) == "AT name: field required"


def test_a_class_without_options_says_so(installed):
    cls = installed.get("plugin", "exchange").value
    with pytest.raises(ConfigError) as caught:
        options.build(cls, {"lr": 1}, where)
    assert str(caught.value) == "AT lr: unknown option (it has no options)"


@dataclass(frozen=True, eq=False)
class Derived:
    size: int = 2
    area: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "area", self.size**2)


def test_a_field_that_is_derived_is_no_option():
    made = options.build(Derived, {"size": 3}, where)
    assert (made.area, options.dump(made)) == (9, {"size": 3})
    with pytest.raises(ConfigError, match="AT area: unknown option"):
        options.build(Derived, {"area": 3}, where)


def test_dump_and_build_are_inverse():
    made = build(sizes=[4, 5], each={"a": 1}, cap=0.5, inner={"depth": 1})
    data = options.dump(made)
    assert data["sizes"] == [4, 5]
    assert list(data) == ["name", "lr", "steps", "flag", "kind", "sizes", "each", "cap", "inner"]
    assert options.dump(options.build(Example, data, where)) == data


def test_describe_shows_type_default_bounds_and_text():
    found = {o.name: (o.type, o.default, o.bounds, o.about) for o in options.describe(Example)}
    assert found == {
        "name": ("str", "(required)", "", "what to call it"),
        "lr": ("float", "0.1", "> 0, <= 1", "learning rate"),
        "steps": ("int", "5", ">= 1", ""),
        "flag": ("bool", "false", "", ""),
        "kind": ("a | b", '"a"', "", ""),
        "sizes": ("tuple[int, ...]", "[1, 2]", "items >= 1", ""),
        "each": ("int | dict[str, int]", "2", ">= 1", ""),
        "cap": ("float | null", "null", "> 0", ""),
        "inner": ("Inner", '"Inner(depth=0)"', "", ""),
    }


def test_the_schema_refuses_unknown_keys_at_every_depth():
    schema = options.schema(Example)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Inner"]["additionalProperties"] is False
    assert schema["required"] == ["name"]
    assert schema["properties"]["lr"]["exclusiveMinimum"] == 0


@pytest.mark.parametrize("kind", ["plugin", "dataset", "model", "metric", "executor"])
def test_everything_installed_documents_its_options(installed, kind):
    for entry in installed.all(kind):
        assert entry.about, f"{kind} {entry.name} has no docstring"
        if entry.package != "tests":
            for option in options.describe(entry.value):
                assert option.about, f"{kind} {entry.name}: {option.name} has no description"
