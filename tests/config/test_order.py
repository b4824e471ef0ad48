"""Plugins run in the order given, and transforms on the inputs that their classes expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from fedbench.config import yamlfile
from fedbench.config.model import RunConfig
from fedbench.config.resolve import resolve
from fedbench.errors import ConfigError
from fedbench.hookspecs import hookimpl
from fedbench.types import Recipe


@dataclass(frozen=True, eq=False)
class Blur:
    """A transform that says nothing of its place."""

    @hookimpl
    def transform(self, inputs): ...


@dataclass(frozen=True, eq=False)
class Invert(Blur):
    """A transform of pixels."""

    expects: ClassVar[str] = "pixels"


@dataclass(frozen=True, eq=False)
class Clip(Blur):
    """A transform of normalised values."""

    expects: ClassVar[str] = "normalised"


@dataclass(frozen=True, eq=False)
class Restore(Clip):
    """A transform that makes pixels again."""

    produces: ClassVar[str] = "pixels"


@dataclass(frozen=True, eq=False)
class Watch:
    """A plugin that shares no hook with a transform."""

    @hookimpl
    def round_end(self): ...


@dataclass(frozen=True, eq=False)
class Needy(Watch):
    """A plugin that needs another one before it."""

    requires: ClassVar[tuple[str, ...]] = ("watch",)


CARD = ["domains", "normalize", "uniform", "sgd", "exchange", "mean", "cross_entropy"]
"""The plugins of FedAvg on the default card."""


@pytest.fixture
def plugins(registry, add):
    """Return the plugins of FedAvg with what a file lists and flags add, in order."""
    add(blur=Blur, invert=Invert, clip=Clip, restore=Restore, watch=Watch, needy=Needy)

    def names(*file: str, recipe: str = "fedavg", **more: Any) -> list[str]:
        data = {"recipe": recipe, "plugins": {name: {} for name in file}}
        document = yamlfile.parse(yamlfile.dump(data), "mine.yaml")
        return list(resolve(registry, file=document, **more).plugins)

    return names


def test_a_file_that_names_no_plugin_of_its_own_changes_no_place(plugins):
    assert plugins() == CARD
    assert plugins("sgd") == CARD
    assert plugins("normalize", "cross_entropy") == CARD


def test_what_a_file_names_is_in_the_files_order_and_the_rest_keeps_its_places(plugins):
    assert plugins("uniform", "domains") == ["uniform", "normalize", "domains", *CARD[3:]]
    assert plugins("sgd", "watch", "normalize") == (
        ["domains", "sgd", "uniform", "watch", "normalize", "exchange", "mean", "cross_entropy"]
    )


@pytest.mark.parametrize(
    ("file", "transforms"),
    [
        (["invert", "normalize"], ["invert", "normalize"]),
        (["invert"], ["invert", "normalize"]),
        (["blur"], ["normalize", "blur"]),
        (["blur", "normalize"], ["blur", "normalize"]),
        (["normalize", "blur"], ["normalize", "blur"]),
        (["blur", "invert"], ["blur", "invert", "normalize"]),
        (["invert", "blur"], ["invert", "normalize", "blur"]),
        (["invert", "blur", "normalize"], ["invert", "blur", "normalize"]),
        (["invert", "blur", "normalize", "clip"], ["invert", "blur", "normalize", "clip"]),
        (["clip"], ["normalize", "clip"]),
        (["restore", "invert"], ["normalize", "restore", "invert"]),
        (["normalize", "restore", "invert"], ["normalize", "restore", "invert"]),
    ],
    ids=str,
)
def test_transforms_of_a_file_run_in_its_order_and_on_what_they_expect(plugins, file, transforms):
    found = plugins(*file)
    assert [name for name in found if name in {*transforms}] == transforms
    assert [name for name in found if name in CARD] == CARD, "the card's stay in place"


@pytest.mark.parametrize(
    ("plus", "transforms"),
    [
        (["invert"], ["invert", "normalize"]),
        (["blur"], ["normalize", "blur"]),
        (["blur", "invert"], ["blur", "invert", "normalize"]),
        (["invert", "blur"], ["invert", "normalize", "blur"]),
        (["clip", "invert"], ["invert", "normalize", "clip"]),
        (["invert", "clip"], ["invert", "normalize", "clip"]),
        (["normalize", "invert"], ["invert", "normalize"]),
    ],
    ids=str,
)
def test_transforms_that_flags_add_run_in_their_order_and_on_what_they_expect(
    plugins, plus, transforms
):
    found = plugins(plus=plus)
    assert [name for name in found if name in {*transforms}] == transforms
    assert [name for name in found if name in CARD] == CARD


def test_set_adds_a_plugin_where_a_flag_would(plugins):
    assert plugins(sets=["plugins.invert={}"]) == plugins(plus=["invert"])
    assert plugins(sets=["plugins.watch={}"])[-1] == "watch"


def test_a_recipes_transform_of_pixels_comes_before_the_cards_normalisation(plugins, registry):
    from fedbench.plugins.registry import Entry

    recipe = Recipe(
        {"exchange": {}, "mean": {}, "cross_entropy": {}, "invert": {}}, "about", "source"
    )
    registry.entries["recipe", "augmented"] = [Entry("recipe", "augmented", recipe, "tests", "")]
    assert plugins(recipe="augmented") == ["domains", "invert", *CARD[1:]]


def test_what_is_left_out_moves_nothing(plugins):
    assert plugins(plus=["invert"], without=["normalize"])[-1] == "invert"


def test_a_plugin_that_shares_no_hook_is_not_moved_along(plugins):
    assert plugins("watch", "invert")[-1] == "watch"
    assert plugins(plus=["watch", "invert"])[-1] == "watch"


def test_a_required_plugin_that_a_flag_adds_comes_before_its_user(plugins):
    assert plugins(plus=["needy", "watch"])[-2:] == ["watch", "needy"]
    with pytest.raises(ConfigError, match=r"^plugin 'needy' needs 'watch' before it$"):
        plugins("needy", "watch")


BEFORE = (
    "plugin 'invert' transforms pixels in [0, 1], but 'normalize' before it produces normalised "
    "values; put 'invert' before 'normalize'"
)
AFTER = (
    "plugin 'clip' transforms normalised values, but 'normalize', which produces them, comes after "
    "it; put 'normalize' before 'clip'"
)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (["normalize", "invert"], BEFORE),
        (["normalize", "blur", "invert"], BEFORE),
        (["clip", "normalize"], AFTER),
        (["clip", "invert"], BEFORE),
        (["clip", "invert", "normalize"], AFTER),
    ],
    ids=str,
)
def test_a_file_whose_order_cannot_work_is_refused_with_both_names(plugins, file, error):
    with pytest.raises(ConfigError) as caught:
        plugins(*file)
    assert str(caught.value) == error


def whole(registry, names: list[str]) -> RunConfig:
    data = resolve(registry, "fedavg").to_dict()
    data["plugins"] = {name: data["plugins"].get(name, {}) for name in names}
    return resolve(registry, file=yamlfile.parse(yamlfile.dump(data), "whole.yaml"))


def test_a_whole_file_is_taken_as_it_is_written_or_refused(plugins, registry):
    names = ["watch", "uniform", "blur", "domains", "normalize", "clip", *CARD[3:]]
    assert list(whole(registry, names).plugins) == names
    with pytest.raises(ConfigError) as caught:
        whole(registry, [*CARD, "invert"])
    assert str(caught.value) == BEFORE


def test_without_a_plugin_that_normalises_nothing_is_known_of_the_inputs(plugins):
    for name in ("invert", "clip", "blur"):
        assert plugins(name, without=["normalize"])[-1] == name


@pytest.mark.parametrize(
    ("plus", "transforms"),
    [
        ("colour_jitter", ["colour_jitter", "normalize"]),
        ("crop", ["crop", "normalize"]),
        ("cutout", ["normalize", "cutout"]),
        ("flip", ["normalize", "flip"]),
    ],
)
def test_the_bundled_transforms_are_added_on_their_side_of_normalize(plugins, plus, transforms):
    assert [name for name in plugins(plus=[plus]) if name in transforms] == transforms
