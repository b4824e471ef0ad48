"""A plugin of a later layer replaces one of an earlier layer; `without` leaves one out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.config import yamlfile
from fedbench.config.changes import describe_changes, joined
from fedbench.config.model import RunConfig
from fedbench.config.resolve import resolve
from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.plugins.registry import Entry, Registry
from fedbench.study.grid import Grid, plan
from fedbench.types import Recipe

CARD = ["domains", "normalize", "uniform", "sgd", "exchange", "mean", "cross_entropy"]
"""The plugins of FedAvg on the default card."""


@dataclass(frozen=True, eq=False)
class Halves:
    """A partition."""

    clients: int = 2

    @hookimpl
    def partition(self, data): ...


@dataclass(frozen=True, eq=False)
class Noisy(Halves):
    """A partition that does more than that, and observes."""

    @hookimpl
    def client_data(self, data): ...

    @hookimpl
    def round_end(self): ...


@dataclass(frozen=True, eq=False)
class Noisier(Noisy):
    """A partition that does what another one does, and observes nothing."""

    round_end = None


@dataclass(frozen=True, eq=False)
class Both(Halves):
    """A partition that selects clients, too."""

    @hookimpl
    def select_clients(self): ...


@dataclass(frozen=True, eq=False)
class Late(Halves):
    """A partition that must come after the sampling of clients."""

    requires: ClassVar[tuple[str, ...]] = ("uniform",)


@dataclass(frozen=True, eq=False)
class Meant:
    """Was meant to wrap the training."""

    @hookimpl
    def client_update(self):
        return (yield)


@pytest.fixture
def mine(registry, add):
    """Return what resolves a file and flags, with some partitions installed."""
    add(halves=Halves, noisy=Noisy, noisier=Noisier, both=Both, late=Late, meant=Meant)

    def resolved(text: str = "", method: str | None = "fedavg", **more: Any) -> RunConfig:
        file = yamlfile.parse(text, "mine.yaml") if text else None
        config = resolve(registry, method, file=file, **more)
        again = yamlfile.parse(config.to_yaml(), "again.yaml")
        assert resolve(registry, file=again).to_yaml() == config.to_yaml()
        return config

    return resolved


def recipe(registry, name: str, plugins: dict[str, Any], **more: Any) -> None:
    value = Recipe(plugins, "about", "source", **more)
    registry.entries["recipe", name] = [Entry("recipe", name, value, "tests", "")]


def test_a_files_partition_replaces_the_cards_in_its_place(mine):
    config = mine("plugins:\n  halves: {clients: 3}\n")
    assert list(config.plugins) == ["halves", *CARD[1:]]
    assert config.plugins["halves"] == {"clients": 3}


def test_a_flags_partition_replaces_the_files(mine):
    file = "plugins:\n  halves: {clients: 3}\n"
    for more in ({"plus": ["iid"]}, {"sets": ["plugins.iid={}"]}):
        assert list(mine(file, **more).plugins) == ["iid", *CARD[1:]]


def test_a_recipe_replaces_what_the_card_names(mine, registry):
    recipe(
        registry,
        "halved",
        {"exchange": {}, "mean": {}, "cross_entropy": {}, "halves": {"clients": 5}},
    )
    config = mine(method="halved")
    assert list(config.plugins) == ["halves", *CARD[1:]]
    assert list(mine(method="halved", plus=["domains"]).plugins) == CARD


def test_a_plugin_that_comes_back_has_its_default_options(mine):
    config = mine("plugins:\n  halves: {}\n", plus=["domains"])
    assert list(config.plugins) == CARD
    assert mine().plugins["domains"]["examples"] == 300, "set by the card"
    assert config.plugins["domains"]["examples"] is None


def test_a_plugin_that_replaces_two_is_in_the_place_of_the_first(mine):
    assert list(mine(plus=["both"]).plugins) == ["both", "normalize", *CARD[3:]]


def test_two_plugins_that_together_do_what_one_did_take_its_place(mine):
    config = mine("plugins:\n  both: {}\n", plus=["uniform", "halves"])
    assert list(config.plugins) == ["uniform", "halves", "normalize", *CARD[3:]]


def test_a_file_that_orders_its_plugins_decides_the_place(mine):
    config = mine("plugins:\n  normalize: {}\n  halves: {}\n")
    assert list(config.plugins) == ["normalize", "halves", *CARD[2:]]


def test_a_place_that_the_class_does_not_allow_is_not_taken(mine):
    assert list(mine(plus=["late"]).plugins) == [*CARD[1:], "late"]


def test_a_replaced_plugin_has_no_options_to_set(mine):
    with pytest.raises(ConfigError, match=r"^--set domains\.examples=3: 'domains' is not a plugin"):
        mine("plugins:\n  halves: {}\n", sets=["domains.examples=3"])


# --- more than its successor ---------------------------------------------------------------------


def test_a_plugin_that_does_more_than_its_successor_is_not_replaced_silently(mine):
    file = "plugins:\n  noisy: {}\n"
    with pytest.raises(ConfigError) as caught:
        mine(file, plus=["halves"])
    assert str(caught.value) == (
        "--with halves: plugins.halves: would take the place of 'noisy' (mine.yaml:2) as "
        "'partition', but 'noisy' also implements client_data; if the run is meant to lose that, "
        "add `--without noisy`"
    )
    assert list(mine(file, plus=["halves"], without=["noisy"]).plugins) == [*CARD[1:], "halves"]


def test_each_layer_says_in_its_own_way_what_it_leaves_out(mine, registry):
    parts = {"exchange": {}, "mean": {}, "cross_entropy": {}, "noisy": {}}
    recipe(registry, "noisy", parts)
    with pytest.raises(ConfigError, match=r"add `without: \[noisy\]`$") as caught:
        mine("plugins:\n  halves: {}\n", method="noisy")
    assert str(caught.value).startswith("mine.yaml:2: plugins.halves: would take the place of 'noi")
    assert "(recipe noisy)" in str(caught.value)
    config = mine("without: [noisy]\nplugins:\n  halves: {}\n", method="noisy")
    assert list(config.plugins) == [*CARD[1:], "halves"]


def test_observing_changes_nothing_and_so_is_nothing_to_lose(mine):
    config = mine("plugins:\n  noisy: {}\n", plus=["noisier"])
    assert list(config.plugins) == ["noisier", *CARD[1:]]


def test_a_forgotten_mark_of_a_wrapper_replaces_nothing(mine):
    with pytest.raises(ConfigError, match=r"'meant' has a `yield`: if it is meant as a wrapper"):
        mine(plus=["meant"])


# --- two in one layer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "more", "error"),
    [
        (
            "plugins:\n  halves: {}\n  iid: {}\n",
            {},
            "mine.yaml:3: plugins.iid: implements 'partition', and so does 'halves' (mine.yaml:2)",
        ),
        (
            "plugins:\n  iid: {}\n  domains: {}\n",
            {},
            "mine.yaml:3: plugins.domains: implements 'partition', and so does 'iid' (mine.yaml:2)",
        ),
        (
            "",
            {"plus": ["halves", "iid"]},
            "--with iid: plugins.iid: implements 'partition', and so does 'halves' (--with halves)",
        ),
        (
            "",
            {"plus": ["iid"], "sets": ["domains.examples=3"]},
            "--set domains.examples=3: plugins.domains: implements 'partition', and so does 'iid' "
            "(--with iid)",
        ),
    ],
    ids=["file", "file and card", "flags", "--with and --set"],
)
def test_two_for_one_place_in_a_layer_are_both_named(mine, file, more, error):
    with pytest.raises(ConfigError) as caught:
        mine(file, **more)
    assert str(caught.value) == f"{error}; a run has exactly one, so leave out one of the two"


# --- without -------------------------------------------------------------------------------------


def test_a_file_leaves_plugins_out_as_the_flag_does(mine):
    by_file = mine("without: [hpal]\n", method="fedhpro")
    by_flag = mine(method="fedhpro", without=["hpal"])
    assert by_file.to_yaml() == by_flag.to_yaml()
    assert "without" not in by_file.to_dict()


def test_what_a_file_leaves_out_a_flag_can_add(mine):
    assert list(mine("without: [domains]\n", plus=["domains"]).plugins) == CARD
    assert mine("without: []\n").to_yaml() == mine().to_yaml()


def test_a_set_option_of_a_plugin_that_is_left_out_is_no_error(mine):
    """In a comparison, ``--set`` is for all methods, also for the ablation without the plugin."""
    config = mine(method="fedhpro", sets=["hpal.weight=2"], without=["hpal"])
    assert config.hash == mine(method="fedhpro", without=["hpal"]).hash


def test_a_recipe_may_leave_out_what_the_card_does_not_have(mine, registry):
    recipe(
        registry,
        "raw",
        {"exchange": {}, "mean": {}, "cross_entropy": {}},
        without=("normalize", "crop"),
    )
    assert list(mine(method="raw").plugins) == ["domains", *CARD[2:]]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "without: [normalise]",
            "mine.yaml:1: without: normalise: it is not a plugin of this run (did you mean "
            "'normalize'?)",
        ),
        (
            "rounds: 3\nwithout:\n  - normalize\n  - sgdd\n",
            "mine.yaml:4: without: sgdd: it is not a plugin of this run (did you mean 'sgd'?)",
        ),
        (
            "without: [halves]\nplugins:\n  halves: {}\n",
            "mine.yaml:1: without: halves: only mine.yaml:3 adds this plugin; leave that out "
            "instead",
        ),
        (
            "rounds: 3\nwithout: crop\n",
            "mine.yaml:2: without: give a list of plugins, for example `without: [crop]`, got "
            "'crop'",
        ),
        (
            "without: [1]\n",
            "mine.yaml:1: without: give a list of plugins, for example `without: [crop]`, got [1]",
        ),
        ("without:\n", "mine.yaml:1: without: give a list of plugins, for example `without: [cr"),
        ("withot: [crop]\n", "mine.yaml:1: withot: unknown key (did you mean 'without'?)"),
    ],
)
def test_a_wrong_without_is_an_error_with_its_line(mine, text, error):
    with pytest.raises(ConfigError) as caught:
        mine(text)
    assert str(caught.value).startswith(error)


def test_without_a_flags_own_plugin(mine):
    with pytest.raises(ConfigError) as caught:
        mine(plus=["halves"], without=["halves"])
    assert str(caught.value) == (
        "--without halves: only --with halves adds this plugin; leave that out instead"
    )


# --- names of variants ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "more", "changes"),
    [
        ("plugins: {halves: {}}", {}, ["+halves"]),
        ("plugins: {halves: {clients: 3}}", {}, ["+halves", "halves.clients=3"]),
        ("", {"plus": ["halves"]}, ["+halves"]),
        ("", {"plus": ["halves"], "without": ["domains"]}, ["-domains", "+halves"]),
        ("", {"plus": ["both"]}, ["+both"]),
        ("without: [normalize]", {"plus": ["halves"]}, ["-normalize", "+halves"]),
        ("without: [normalize]", {}, ["-normalize"]),
    ],
    ids=str,
)
def test_a_variants_name_makes_the_same_config(mine, registry, tmp_path, file, more, changes):
    config = mine(file, **more)
    assert describe_changes(registry, config) == changes
    grid = Grid(methods=[joined("fedavg", changes)], seeds=1)
    (job,) = plan(registry, grid, tmp_path)
    assert job.config.to_yaml() == config.to_yaml()


PARTS = {
    "partition": ["domains", "halves", "iid", "dirichlet"],
    "select_clients": ["uniform", "some"],
    "train": ["sgd", "trainer"],
}
"""Single hook -> plugins that implement it alone."""


@pytest.mark.parametrize("by", ["plus", "file"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_order_after_replacements_is_the_one_before_with_other_names(installed, by, data):
    @dataclass(frozen=True, eq=False)
    class Some:
        @hookimpl
        def select_clients(self): ...

    @dataclass(frozen=True, eq=False)
    class Trainer:
        @hookimpl
        def train(self): ...

    registry = Registry({k: list(v) for k, v in installed.entries.items()})
    for name, cls in (("halves", Halves), ("some", Some), ("trainer", Trainer)):
        registry.entries["plugin", name] = [Entry("plugin", name, cls, "tests", "")]
    method = data.draw(st.sampled_from(["fedavg", "fedhpro", "fpl"]))
    before = list(resolve(registry, method).plugins)
    chosen = [data.draw(st.sampled_from(names)) for names in PARTS.values()]
    new = data.draw(st.permutations([name for name in chosen if name not in before]))
    if by == "plus":
        config = resolve(registry, method, plus=new)
    else:
        file = yamlfile.Document({"plugins": {name: {} for name in new[:1]}}, "mine.yaml")
        config = resolve(registry, method, file=file, plus=new[1:])
    successor = dict(zip([names[0] for names in PARTS.values()], chosen, strict=True))
    assert list(config.plugins) == [successor.get(name, name) for name in before]


@pytest.mark.parametrize("asked", [{"method": "fedprox"}, {"card": "digits-leave-out"}])
def test_a_complete_file_is_not_asked_to_be_another_method_or_card(installed, asked):
    file = yamlfile.parse(resolve(installed, "fedavg").to_yaml(), "mine.yaml")
    (name,) = asked.values()
    with pytest.raises(ConfigError, match=f"^mine.yaml states every value, of .*{name}' would"):
        resolve(installed, file=file, **asked)
    same = resolve(installed, "fedavg", file=file, card="digits")
    assert same.hash == resolve(installed, file=file).hash
