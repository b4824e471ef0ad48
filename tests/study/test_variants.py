"""What a comparison compares: methods by name, with changes, and files; and what it calls them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fedbench import ConfigError, hookimpl
from fedbench.config import yamlfile
from fedbench.config.resolve import resolve
from fedbench.plugins.registry import Registry
from fedbench.study import records
from fedbench.study.grid import Grid, Variant, labels, parse_method, parse_setting, plan


def grid(*methods: str, **more: Any) -> Grid:
    return Grid(methods=list(methods), **{"seeds": 1, **more})


@pytest.mark.parametrize("text", ["fedhpro:hpal", "fedhpro:", "fedhpro:-"])
def test_a_malformed_spec_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be -PLUGIN, \+PLUGIN or KEY=VALUE"):
        parse_method(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("fedavg", Variant("fedavg")),
        (
            "fedhpro:-hpal:hpcl.temperature=0.1:-hpcl:+faults",
            Variant(
                "fedhpro",
                without=("hpal", "hpcl"),
                plus=("faults",),
                sets=("hpcl.temperature=0.1",),
            ),
        ),
        (
            'fedavg:failures={"policy": "skip"}:image-folder.root="a:b\\"c:d":x.y=[1, 2]:a.b=c]:-d',
            Variant(
                "fedavg",
                without=("d",),
                sets=(
                    'failures={"policy": "skip"}',
                    'image-folder.root="a:b\\"c:d"',
                    "x.y=[1, 2]",
                    "a.b=c]",
                ),
            ),
        ),
        ("runs/mine.yaml:-hpal", Variant(None, Path("runs/mine.yaml"), without=("hpal",))),
        ("mine.yml", Variant(None, Path("mine.yml"))),
        ("fedavg:data.index=a.yaml", Variant("fedavg", sets=("data.index=a.yaml",))),
    ],
    ids=["name", "changes", "colons in values", "file", "file alone", "a file as a value"],
)
def test_what_a_method_names(text: str, wanted: Variant) -> None:
    assert parse_method(text) == wanted


def test_what_a_setting_names() -> None:
    assert parse_setting("plain") == Variant(None)
    assert parse_setting("+odd:odd.on=true:-crop") == Variant(
        None, without=("crop",), plus=("odd",), sets=("odd.on=true",)
    )
    with pytest.raises(ConfigError, match=r"^sign_flip: 'sign_flip' must be -PLUGIN, \+PLUGIN or"):
        parse_setting("sign_flip")


@dataclass(frozen=True, eq=False)
class Storm:
    """A part of the problem, although it prepares no data."""

    setting: ClassVar[bool] = True
    force: int = 1

    @hookimpl
    def round_end(self) -> None: ...


def test_settings_change_every_method_and_are_no_part_of_its_name(
    registry: Registry, add: Callable[..., None], tmp_path: Path
) -> None:
    add(storm=Storm)
    settings = ["plain", "+storm", "+storm:storm.force=2:sgd.lr=0.5"]
    wanted = Grid(["fedavg", "fedprox"], settings=settings, seeds=1)
    jobs = plan(registry, wanted, tmp_path)
    variants = [records.variant_of(registry, job.config) for job in jobs]
    assert variants == [*["fedavg", "fedprox"] * 2, "fedavg:sgd.lr=0.5", "fedprox:sgd.lr=0.5"]
    found = [records.setting_of(registry, job.config) for job in jobs]
    assert found[0] == found[1]
    assert records.setting_labels([found[0], found[2], found[4]]) == [
        "digits",
        "digits, storm.force=1",
        "digits, storm.force=2",
    ]
    assert records.setting_labels([found[0], found[2]]) == ["digits", "digits, storm"]


def test_a_label_says_nothing_that_data_set_and_card_imply() -> None:
    def setting(data: str, card: str | None, **more: Any) -> dict[str, Any]:
        from_card = {"card": {"card": card, "card_hash": f"hash of {card}"}} if card else {}
        return {"data": {"name": data, "of": data}, "plugins": {}, "rounds": 3, **from_card, **more}

    one, other = setting("digits", "digits"), setting("digits", "digits-long", rounds=9)
    images = setting("fashion", "fashion", rounds=5)
    assert records.setting_labels([one, images]) == ["digits", "fashion"]
    assert records.setting_labels([one, other, images]) == [
        "digits, card digits",
        "digits, card digits-long",
        "fashion",
    ]
    longer, free = {**one, "rounds": 4}, setting("digits", None)
    assert records.setting_labels([one, longer, images]) == [
        "digits, rounds=3",
        "digits, rounds=4",
        "fashion",
    ]
    assert records.setting_labels([one, free]) == ["digits, card digits", "digits, no card"]


@dataclass(frozen=True, eq=False)
class Odd:
    """Has an option of every kind."""

    text: str = "a"
    maybe: float | None = 0.5
    names: tuple[str, ...] = ()
    table: Mapping[str, int] = field(default_factory=dict)
    on: bool = False

    @hookimpl
    def round_end(self) -> None: ...


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("fedprox:+faults", "fedprox:+faults"),
        ("fedprox:faults.drop=0.2:+faults", "fedprox:+faults:faults.drop=0.2"),
        ("fedhpro:hpcl.temperature=0.10:-hpal", "fedhpro:-hpal:hpcl.temperature=0.1"),
        ("fedavg:sgd.lr=0.00001", "fedavg:sgd.lr=1e-05"),
        ("fedavg:+odd:odd.on=true", "fedavg:+odd:odd.on=true"),
        ("fedavg:+odd:odd.maybe=~", "fedavg:+odd:odd.maybe=null"),
        ("fedavg:+odd:odd.text=plain text", "fedavg:+odd:odd.text=plain text"),
        ("fedavg:+odd:odd.text='null'", 'fedavg:+odd:odd.text="null"'),
        ('fedavg:+odd:odd.text="a:b"', 'fedavg:+odd:odd.text="a:b"'),
        ("fedavg:+odd:odd.text='[,\"é'", 'fedavg:+odd:odd.text="[,\\"é"'),
        ("fedavg:+odd:odd.names=[a, '1']", 'fedavg:+odd:odd.names=["a", "1"]'),
        ("fedavg:+odd:odd.table={a: 1, b: 2}", 'fedavg:+odd:odd.table={"a": 1, "b": 2}'),
        (
            "fedavg:failures.policy=skip",
            "fedavg:failures.policy=skip",
        ),
    ],
)
def test_the_name_that_a_report_prints_can_be_given_back(
    registry: Registry, add: Callable[..., None], tmp_path: Path, method: str, name: str
) -> None:
    add(odd=Odd)
    (job,) = plan(registry, grid(method), tmp_path)
    (printed,) = labels(registry, [job]).values()
    assert printed == name
    (again,) = plan(registry, grid(name), tmp_path)
    assert again.config.hash == job.config.hash
    assert records.variant_of(registry, again.config) == name


def test_names_without_what_is_shared_keep_their_values_whole() -> None:
    policy = 'failures={"policy": "skip"}'
    names = [f"fedavg:{policy}", f"fedhpro:-hpal:{policy}"]
    assert list(records.without_shared(names).values()) == ["fedavg", "fedhpro:-hpal"]


def test_a_plugin_at_another_place_than_a_flag_puts_it_is_reordered(
    registry: Registry, add: Callable[..., None]
) -> None:
    add(odd=Odd)
    data = resolve(registry, "fedavg", plus=["odd"]).to_dict()
    data["plugins"] = {"odd": data["plugins"].pop("odd"), **data["plugins"]}
    moved = resolve(registry, file=yamlfile.Document(data, "mine.yaml"))
    assert records.variant_of(registry, moved) == "fedavg:+odd:reordered"


def test_a_partition_that_was_replaced_is_not_in_the_name(
    registry: Registry, tmp_path: Path
) -> None:
    partitions = [{"dirichlet": {"clients": 2, "alpha": 1.0}}]
    (job,) = plan(registry, grid("fedavg", partitions=partitions), tmp_path)
    assert records.variant_of(registry, job.config) == "fedavg"


# --- files as methods ----------------------------------------------------------------------------


@pytest.fixture
def mine(registry: Registry, tmp_path: Path) -> Callable[..., str]:
    """Write a full YAML file, changed as wanted, and return its path."""

    def write(name: str, without: str = "", **changes: Any) -> str:
        data = {**resolve(registry, "fedhpro").to_dict(), **changes}
        data["plugins"].pop(without, None)
        path = tmp_path / name
        path.write_text(yamlfile.dump(data))
        return str(path)

    return write


@dataclass(frozen=True)
class Read:
    """A run as `aligned` sees it."""

    variant: str
    setting_key: str
    config: Any


def named(registry: Registry, wanted: Grid) -> list[dict[str, str]]:
    """Return method -> name in tables for each data set or card of a grid."""
    found = [
        (
            job,
            Read(
                records.variant_of(registry, job.config),
                json.dumps(records.setting_of(registry, job.config), sort_keys=True),
                job.config,
            ),
        )
        for job in plan(registry, wanted, Path("nowhere"))
    ]
    shown = records.aligned([read for _, read in found])  # type: ignore[misc]
    settings: dict[str, dict[str, str]] = {}
    for (job, read), now in zip(found, shown, strict=True):
        lr = job.config.plugins["sgd"]["lr"]
        settings.setdefault(read.setting_key, {})[f"{job.method} {lr}"] = now.variant
    return list(settings.values())


CARDS = ["digits", "fashion-mnist-quick"]  # learning rates 0.01 and 0.1


def test_a_method_has_one_name_under_cards_with_other_defaults(installed: Registry) -> None:
    sets = ["sgd.lr=0.1", "sgd.epochs=2"]
    names = named(installed, grid("fedavg", "fedprox", cards=CARDS, set=sets))
    changed = ":sgd.epochs=2:sgd.lr=0.1"
    one = {f"{m} 0.1": records.joined(m, changed.split(":")[1:]) for m in ("fedavg", "fedprox")}
    assert [{k: {*v.split(":")} for k, v in found.items()} for found in names] == [
        {k: {*v.split(":")} for k, v in one.items()}
    ] * 2
    assert names[0] == names[1]


def test_a_row_is_one_configuration_where_an_option_is_tried_out(installed: Registry) -> None:
    tried = grid("fedavg", cards=CARDS, options={"sgd.lr": [0.01, 0.1]})
    assert (
        named(installed, tried)
        == [{"fedavg 0.01": "fedavg:sgd.lr=0.01", "fedavg 0.1": "fedavg:sgd.lr=0.1"}] * 2
    )


def test_a_default_keeps_its_name_beside_a_change(installed: Registry) -> None:
    both = grid("fedavg", "fedavg:sgd.lr=0.1", cards=CARDS)
    digits, fashion = named(installed, both)
    assert digits == {"fedavg 0.01": "fedavg", "fedavg:sgd.lr=0.1 0.1": "fedavg:sgd.lr=0.1"}
    assert fashion == {"fedavg 0.1": "fedavg"}


def test_settings_that_differ_in_what_has_no_options_are_told_apart() -> None:
    plain = {"data": {"name": "a"}, "card": {}, "plugins": {}, "metrics": {"accuracy": {}}}
    more = {**plain, "metrics": {"accuracy": {}, "macro_f1": {}}}
    assert len({*records.setting_labels([plain, more])}) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": []}, "seeds: give at least one"),
        ({"options": {"sgd.lr": []}}, r"options\.sgd\.lr: give at least one value"),
    ],
)
def test_an_empty_grid_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid("fedavg", **given)


@pytest.mark.parametrize(
    "given",
    [{"set": ["seed=7"]}, {"options": {"seed": [1, 2]}}, {"methods": ["fedavg:seed=5"]}],
)
def test_a_seed_is_named_by_seeds_alone(given: Any, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"say which seeds with --seeds"):
        plan(registry, Grid(**{"methods": ["fedavg"], "seeds": 1, **given}), tmp_path)


def test_a_file_is_a_method(registry: Registry, tmp_path: Path, mine: Callable[..., str]) -> None:
    file = mine("mine.yaml", without="hpal", seed=9, rounds=7)
    jobs = plan(registry, grid(file, f"{file}:hpcl.temperature=0.1", "fedhpro", rounds=2), tmp_path)
    assert [j.config.seed for j in jobs] == [0, 0, 0], "flags win over the file"
    assert [j.config.rounds for j in jobs] == [2, 2, 2]
    assert list(labels(registry, jobs).values()) == [
        "fedhpro:-hpal",
        "fedhpro:-hpal:hpcl.temperature=0.1",
        "fedhpro",
    ]
    assert len({json.dumps(records.setting_of(registry, j.config)) for j in jobs}) == 1


def test_a_file_that_states_what_a_method_is_runs_once_with_it(
    registry: Registry, tmp_path: Path, mine: Callable[..., str]
) -> None:
    file = mine("mine.yaml", without="hpal")
    (job,) = plan(registry, grid(file, "fedhpro:-hpal"), tmp_path)
    assert (job.method, job.also) == (file, ("fedhpro:-hpal",))


def test_a_partial_file_and_changes_on_top(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: fedavg\nplugins: {sgd: {lr: 0.5, momentum: 0.0}}\n")
    (job,) = plan(registry, grid(f"{file}:sgd.lr=0.25:+faults:-cross_entropy:+fedprox"), tmp_path)
    assert job.config.plugins["sgd"]["lr"] == 0.25
    assert job.config.plugins["sgd"]["momentum"] == 0.0
    assert {"faults", "fedprox"} < job.config.plugins.keys()
    assert "cross_entropy" not in job.config.plugins


def test_files_that_tables_could_not_tell_apart_are_refused(
    registry: Registry, tmp_path: Path, mine: Callable[..., str]
) -> None:
    one = mine("one.yaml", origin={})
    two = mine("two.yaml", without="hpal", origin={})
    with pytest.raises(ConfigError) as caught:
        plan(registry, grid(one, two), tmp_path)
    assert str(caught.value) == (
        f"{one} and {two} differ, but tables would call both 'fedhpro'; state another "
        "`method: NAME` in the YAML file of one of them"
    )
    two = mine("two.yaml", without="hpal", origin={}, method="simpler")
    assert set(labels(registry, plan(registry, grid(one, two), tmp_path)).values()) == {
        "fedhpro",
        "simpler",
    }


def test_a_grid_is_not_a_method(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("methods: [fedavg]\n")
    with pytest.raises(ConfigError, match=r"grid.yaml is a grid, not a method; give it as --conf"):
        plan(registry, grid(str(file)), tmp_path)
