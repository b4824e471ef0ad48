"""Every card resolves, gives a reason for every value, and fits the data set that names it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedbench import resolve
from fedbench.cli import main
from fedbench.config.cards import load_card
from fedbench.errors import ConfigError
from fedbench.plugins.discovery import discover
from fedbench.plugins.registry import Registry

CARDS = sorted(discover().names("card"))


@pytest.mark.every_method(slow=True)
def test_every_card_resolves_for_a_method(method: str, installed: Registry) -> None:
    for name in CARDS:
        if (name, method) == ("synthetic-qffl", "dp-fedavg"):
            # This card draws clients by size, and dp's accountant counts uniform draws.
            with pytest.raises(ConfigError, match="'dp' needs 'uniform'"):
                resolve(installed, method, card=name)
            continue
        config = resolve(installed, method, card=name)
        assert config.origin == {
            "recipe": method,
            "card": name,
            "card_hash": load_card(installed, name).hash,
        }


@pytest.mark.parametrize("name", CARDS)
def test_every_value_of_a_card_has_a_reason(name: str, installed: Registry) -> None:
    card = load_card(installed, name)
    explained = {part.strip() for key in card.reasons for part in key.split(",")}
    values = {key for key in card.config if key != "plugins"} | set(card.config["plugins"])
    assert values == explained
    assert all(card.reasons.values())


@pytest.mark.parametrize("name", CARDS)
def test_published_values_are_fractions_of_known_methods(name: str, installed: Registry) -> None:
    for value in load_card(installed, name).published:
        assert value.method in installed.names("recipe")
        assert 0.1 < value.value < 1
        assert value.source


def test_a_changed_value_changes_the_hash(installed: Registry) -> None:
    hashes = [load_card(installed, name).hash for name in CARDS]
    assert len(set(hashes)) == len(CARDS)


def test_every_data_set_with_a_card_names_one_that_exists_and_is_its_own(
    installed: Registry,
) -> None:
    named = {e.name: e.value.card for e in installed.all("dataset") if hasattr(e.value, "card")}
    assert {"digits", "mnist", "fashion-mnist", "cifar10", "office-caltech"} <= set(named)
    for data, card in named.items():
        given = load_card(installed, card).config["data"]
        assert (given["name"] if isinstance(given, dict) else given) == data


def test_what_a_data_set_says_about_itself_are_class_attributes(installed: Registry) -> None:
    kinds = {"name": str, "size": str, "embedded": bool, "licence": str, "source": str}
    for entry in installed.all("dataset"):
        if entry.package == "tests":
            continue
        assert entry.value.name == entry.name
        declared = {}
        for cls in entry.value.__mro__:
            declared |= inspect.get_annotations(cls)
        for attribute, kind in kinds.items():
            assert isinstance(getattr(entry.value, attribute), kind), (entry.name, attribute)
        for attribute in (*kinds, "card", "default"):
            assert declared[attribute].startswith("ClassVar["), (entry.name, attribute)


def test_the_cards_command_lists_and_explains() -> None:
    listing = CliRunner().invoke(main, ["cards"]).output
    assert all(name in listing for name in CARDS)
    text = CliRunner().invoke(main, ["cards", "digits-f2dc"]).output
    assert "98.52" in text
    assert "clients_per_domain" in text
    wrong = CliRunner().invoke(main, ["cards", "digit-fpl"])
    assert wrong.exit_code == 1
    assert "did you mean 'digits-fpl'?" in wrong.output


def test_partition_shows_what_a_config_would_give(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    words = ["partition", "--data", "digits", "--set", "domains.examples=20", "--png", str(picture)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "8 clients, 20 to 20 examples each, 160 in all; seed 0" in done.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_partition_needs_no_method(tmp_path):
    few = ["--set", "domains.examples=20"]
    (tmp_path / "card.yaml").write_text("card: digits\n")
    (tmp_path / "method.yaml").write_text("recipe: fedprox\n")
    shown = [
        CliRunner().invoke(main, ["partition", *words, *few])
        for words in (
            [],
            ["fedprox"],
            ["--config", str(tmp_path / "card.yaml")],
            ["--config", str(tmp_path / "method.yaml")],
        )
    ]
    assert [done.exit_code for done in shown] == [0, 0, 0, 0]
    assert len({done.stdout for done in shown}) == 1
    assert "optdigits" in shown[0].stdout


def test_an_impossible_partition_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["partition", "--set", "domains.examples=3000"])
    assert done.exit_code == 1
    assert "too few for 2 clients with 3000 each" in " ".join(done.output.split())
