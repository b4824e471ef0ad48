"""Everything that is installed is on a reference page, with all its options described."""

from __future__ import annotations

import re

import click
import pytest

from fedbench import hookspecs, options
from fedbench.config.model import RunConfig
from fedbench.plugins.discovery import discover
from fedbench.plugins.registry import KINDS

BUNDLED = "fedbench-toolkit"


@pytest.fixture(scope="module")
def bundled():
    return discover()


@pytest.fixture(scope="module")
def made(site, bundled):
    return site.reference.pages(bundled)


@pytest.fixture(scope="module")
def commands(site):
    return dict(site.reference.commands())


HOMES = {"recipe": "method", "card": "card", "plugin": "plugin"}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_registered_has_one_section_and_every_option_a_row(kind, bundled, made):
    anchors = "\n".join(made.values())
    for entry in bundled.all(kind):
        assert anchors.count(f"({HOMES.get(kind, kind)}-{entry.name})=\n## `{entry.name}`\n") == 1
        if kind in ("recipe", "card", "reproduction"):
            continue
        assert entry.about, f"{kind} {entry.name} has no docstring"
        (page,) = [text for text in made.values() if f"({kind}-{entry.name})=" in text]
        section = page.split(f"({kind}-{entry.name})=")[1].split(")=\n")[0]
        for option in options.describe(entry.value):
            assert option.about, f"{entry.name}.{option.name} has no description"
            (row,) = re.findall(rf"^\| `[\w.-]*\b{option.name}` \|.*$", section, re.MULTILINE)
            assert option.about.replace("|", "\\|") in row
            assert f"`{option.default}`" in row


def test_methods_name_their_source_and_link_to_their_plugins(bundled, made):
    for entry in bundled.all("recipe"):
        section = made["methods.md"].split(f"(method-{entry.name})=")[1].split(")=\n")[0]
        assert f"Source: {entry.value.source}." in section
        for plugin in entry.value.plugins:
            assert f"[`{plugin}`](#plugin-{plugin})" in section


def test_every_card_shows_the_reason_of_every_value(bundled, made):
    from fedbench.config.cards import load_card

    for name in bundled.names("card"):
        card = load_card(bundled, name)
        section = made["cards.md"].split(f"(card-{name})=")[1].split(")=\n")[0]
        for key, why in card.reasons.items():
            assert f"| `{key}` | {' '.join(why.split())} |" in section
        assert card.hash in section


def test_every_hook_is_on_the_hooks_page_with_its_arguments(made):
    for group in (hookspecs.RunHooks, hookspecs.DiscoveryHooks):
        for name in (n for n in vars(group) if not n.startswith("_")):
            section = made["hooks.md"].split(f"(hook-{name})=")[1].split(")=\n")[0]
            assert f"def {name}(" in section
            assert "- **When**: " in section
            assert "- **Returns**: " in section
            assert "@hookimpl" in section
            for argument in getattr(group, name).__annotations__.keys() - {"return"}:
                assert re.search(rf"\b{argument}: ", section)


def test_every_command_and_every_flag_has_help_and_is_on_the_page(commands, made):
    assert len(commands) > 10
    for name, command in commands.items():
        assert command.help, f"{name} has no help"
        section = made["commands.md"].split(f"## `{name}`\n")[1].split(")=\n")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts[0]} has no help"
                assert f"`{', '.join(parameter.opts)}" in section


def test_an_example_stands_in_every_commands_help(commands):
    for name, command in commands.items():
        assert re.search(rf"^ *{name}\b", command.help, re.MULTILINE), f"{name}: no example"


def test_every_config_key_is_on_the_page(made):
    for option in options.describe(RunConfig):
        assert option.about
        assert f"| `{option.name}` |" in made["config.md"]
    assert "| `accuracy.rule` |" in made["config.md"]
    assert "| `failures.policy` |" in made["config.md"]


def test_the_conformance_rules_are_on_a_page(made):
    from fedbench import testing

    for name, _, _ in testing.table():
        assert f"| `{name}` |" in made["rules.md"]


def test_a_thing_that_is_new_gets_its_place(site, registry, made):
    """The pages follow the registry: the tests' tiny data set is on them when it is registered."""
    assert "(dataset-tiny)=" not in made["datasets.md"]
    assert "(dataset-tiny)=" in site.reference.pages(registry)["datasets.md"]
