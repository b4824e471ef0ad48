"""Search spaces: what authors declare, what users write instead, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedbench import ConfigError, Search
from fedbench.plugins.registry import Registry
from fedbench.study.spaces import (
    Space,
    grid,
    of_method,
    overrides,
    refuse_unused,
    sets,
    size,
)

METHODS = ["fedavg", "fedprox", "fedprox:fedprox.mu=0.5"]


def shown(given, registry, tiny_config, method="fedprox", fixed=()):
    config = tiny_config(registry, method.partition(":")[0])
    found = of_method(registry, config, method, fixed, overrides(None, given, METHODS))
    return {key: str(space) for key, space in found.items()}


def test_a_method_has_the_spaces_of_its_plugins(registry: Registry, tiny_config) -> None:
    assert shown([], registry, tiny_config) == {
        "sgd.lr": "0.001 to 0.1, log",
        "fedprox.mu": "0.001, 0.01, 0.1, 1.0",
    }
    assert shown([], registry, tiny_config, "fedavg") == {"sgd.lr": "0.001 to 0.1, log"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sgd.lr=log:0.01:1", {"sgd.lr": "0.01 to 1, log"}),
        ("sgd.lr=uniform:0.01:1", {"sgd.lr": "0.01 to 1"}),
        ("sgd.epochs=int:1:10", {"sgd.epochs": "1 to 10"}),
        ("sgd.epochs=log:1:100", {"sgd.epochs": "1 to 100, log"}),
        ("sgd.lr=choice:0.1,0.01", {"sgd.lr": "0.1, 0.01"}),
        ("sgd.schedule=choice:constant,cosine", {"sgd.schedule": "constant, cosine"}),
        ("sgd.clip_norm=choice:null,1.0", {"sgd.clip_norm": "null, 1.0"}),
        ("sgd.drop_last=choice:true,false", {"sgd.drop_last": "true, false"}),
        ("fedprox:sgd.lr=log:0.01:1", {"sgd.lr": "0.01 to 1, log"}),
        ("fedavg:sgd.lr=log:0.01:1", {}),
        ("fedprox:fedprox.mu=0.5:sgd.lr=log:0.01:1", {}),
    ],
)
def test_a_user_writes_spaces(text, expected, registry: Registry, tiny_config) -> None:
    declared = shown([], registry, tiny_config)
    assert shown([text], registry, tiny_config) == {**declared, **expected}


def test_default_leaves_an_option_alone_and_a_method_s_own_space_wins(
    registry: Registry, tiny_config
) -> None:
    given = ["fedprox:sgd.lr=choice:0.1,0.2", "sgd.lr=log:0.01:1", "fedprox.mu=default"]
    assert shown(given, registry, tiny_config) == {"sgd.lr": "0.1, 0.2"}
    assert shown(given, registry, tiny_config, "fedavg") == {"sgd.lr": "0.01 to 1, log"}


def test_what_is_set_is_not_searched(registry: Registry, tiny_config) -> None:
    assert "sgd.lr" not in shown([], registry, tiny_config, fixed=["sgd.lr=0.05"])
    with pytest.raises(ConfigError, match=r"sgd.lr=log:0.01:1: sgd.lr is set, so it cannot be"):
        shown(["sgd.lr=log:0.01:1"], registry, tiny_config, fixed=["sgd.lr=0.05"])


@pytest.mark.parametrize(
    "text", ["plugins.sgd.lr=0.5", "sgd={lr: 0.5}", "sgd.lr =0.5", "plugins={sgd: {lr: 0.5}}"]
)
def test_what_is_set_in_another_form_is_not_searched_either(
    text: str, registry: Registry, tiny_config
) -> None:
    assert "sgd.lr" not in shown([], registry, tiny_config, fixed=[text])


def test_a_file_holds_the_same_spaces_and_the_command_line_wins(
    registry: Registry, tiny_config, tmp_path: Path
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "sgd.lr: {low: 0.01, high: 1, scale: log}\n"
        "fedprox:fedprox.mu: [0.5, 1]\n"
        "sgd.epochs: int:1:3\n"
    )
    given = overrides(file, ["sgd.epochs=int:1:5"], METHODS)
    found = of_method(registry, tiny_config(registry, "fedprox"), "fedprox", (), given)
    assert {key: str(space) for key, space in found.items()} == {
        "sgd.lr": "0.01 to 1, log",
        "fedprox.mu": "0.5, 1",
        "sgd.epochs": "1 to 5",
    }
    assert found["sgd.epochs"].whole
    assert not found["sgd.lr"].whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sgd.lr", "write PLUGIN.OPTION=SPACE"),
        ("sgd.lr=lgo:1:2", r"'lgo:1:2' is not a space \(did you mean 'log'\?\)"),
        ("sgd.lr=log:0.1", r"give both ends, for example log:1:10"),
        ("sgd.lr=log:0:1", "a log scale needs low > 0"),
        ("sgd.lr=uniform:2:1", "low 2 must be less than high 1"),
        ("sgd.lr=uniform:-1:1", "-1 is not valid for it: input should be greater than 0"),
        ("sgd.lr=choice:0.1", "two or more different values"),
        ("sgd.lr=choice:0.1,[", "not valid YAML"),
        ("sgd.epochs=int:0.5:3", "int takes whole numbers"),
        ("sgd.epochs=uniform:1.5:3", "1.5 is not valid for it"),
        ("sgd.epoch=int:1:3", r"unknown option 'epoch' \(did you mean 'epochs'\?\)"),
        ("sgd.epoch=default", r"unknown option 'epoch' \(did you mean 'epochs'\?\)"),
        ("fedporx:sgd.lr=log:0.1:1", r"no method 'fedporx' is tuned \(did you mean 'fedprox'\?\)"),
        ("domains.examples=int:10:20", "'domains' belongs to the setting that methods share"),
    ],
)
def test_wrong_spaces_are_refused(text, message, registry: Registry, tiny_config) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        shown([text], registry, tiny_config)
    assert str(caught.value).startswith(f"--set-space {text}")


def test_a_wrong_space_in_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("sgd.lr: log:0.1:1\nsgd.epochs: {lwo: 1, high: 3}\n")
    with pytest.raises(ConfigError, match=r"space.yaml:2: sgd.epochs: unknown key 'lwo' .*'low'"):
        overrides(file, [], METHODS)
    file.write_text("sgd.lr: 0.1\n")
    with pytest.raises(ConfigError, match=r"space.yaml:1: sgd.lr: 0.1 is not a space; write log:"):
        overrides(file, [], METHODS)


def test_a_space_that_no_method_has_is_refused(registry: Registry, tiny_config) -> None:
    configs = {name: tiny_config(registry, name) for name in ("fedavg", "fedprox")}
    for text in ("fedporx.mu=choice:1,2", "fedavg:fedprox.mu=choice:1,2"):
        given = overrides(None, [text], list(configs))
        with pytest.raises(ConfigError, match="is not a plugin of"):
            refuse_unused(given, configs)
    refuse_unused(overrides(None, ["fedprox.mu=choice:1,2"], list(configs)), configs)


LOG = Space(Search(low=0.001, high=0.1, scale="log"))
WHOLE = Space(Search(low=1, high=4), whole=True)
THREE = Space(Search(choices=("a", 1, None)))


def test_points_are_spread_by_the_scale() -> None:
    assert LOG.points(3) == [0.001, 0.01, 0.1]
    assert Space(Search(low=0.0, high=1.0)).points(3) == [0.0, 0.5, 1.0]
    assert WHOLE.points(10) == [1, 2, 3, 4]
    assert WHOLE.points(2) == [1, 4]
    assert THREE.points(2) == ["a", 1, None]


def test_the_size_of_a_product() -> None:
    assert size({}) == 1
    assert size({"a": WHOLE, "b": THREE}) == 12
    assert size({"a": WHOLE, "b": LOG}) == math.inf


def test_a_space_contains_its_ends_and_choices() -> None:
    assert 0.001 in LOG
    assert 0.1 in LOG
    assert 0.2 not in LOG
    assert None not in LOG
    assert 2 in WHOLE
    assert 2.5 not in WHOLE
    assert None in THREE
    assert 2 not in THREE


def test_numbers_are_rounded_but_stay_within_the_range() -> None:
    assert LOG.rounded(0.0123456) == 0.01235
    assert Space(Search(low=0.12344, high=1.0)).rounded(0.12344) == 0.12344


def test_a_grid_has_as_many_points_as_it_may_but_no_more() -> None:
    found = grid({"lr": LOG, "n": WHOLE}, 12, seed=0)
    assert len(found) == 9  # 3 x 3, since 4 x 4 is more than 12
    assert {point["lr"] for point in found} == {0.001, 0.01, 0.1}
    assert {point["n"] for point in found} == {1, 2, 4}
    assert len(grid({"lr": LOG, "n": THREE}, 5, seed=0)) == 5
    assert grid({"n": WHOLE}, 100, seed=0) == grid({"n": WHOLE}, 100, seed=0)
    assert sorted(point["n"] for point in grid({"n": WHOLE}, 100, seed=0)) == [1, 2, 3, 4]


def test_values_are_written_as_a_method_s_name_has_them() -> None:
    assert sets({"sgd.lr": 0.05, "a.b": None, "a.c": [1, 2]}) == [
        "sgd.lr=0.05",
        "a.b=null",
        "a.c=[1, 2]",
    ]
