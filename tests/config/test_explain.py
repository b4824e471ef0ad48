"""`fedbench config --explain` names, for each value, the layer that set it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fedbench.cli import main
from fedbench.config import yamlfile
from fedbench.config.explain import WIDTH, explained
from fedbench.config.merging import Merged
from fedbench.config.resolve import resolve

FILE = """recipe: fedhpro
card: digits
without: [hpal]
plugins:
  iid:
    clients: 7
  sgd: {lr: 0.5, momentum: 0.8}
"""


@pytest.fixture
def explain(registry):
    """Return the explanation of a config, and check that it is the config's YAML."""

    def explanation(text: str = FILE, source: str = "mine.yaml", **more: Any) -> list[str]:
        seen: list[Merged] = []
        file = yamlfile.parse(text, source)
        config = resolve(registry, file=file, seen=seen.append, **more)
        found = explained(config, seen[0])
        again = yamlfile.parse(found, "again.yaml")
        assert again.data == config.to_dict()
        assert resolve(registry, file=again).to_yaml() == config.to_yaml()
        return found.splitlines()

    return explanation


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("method: fedhpro", "recipe fedhpro"),
        ("  width: 16", "card digits"),
        ("  feature_size: 256", "default"),
        ("rounds: 3", "command line"),
        ("seed: 4", "--set seed=4"),
        ("  iid:", "mine.yaml:5"),
        ("    clients: 7", "mine.yaml:6"),
        ("    lr: 0.1", "--set sgd.lr=0.1"),
        ("    momentum: 0.8", "mine.yaml:7"),
        ("    weight_decay: 1.0e-05", "card digits"),
        ("    drop_last: false", "default"),
        ("  sgd:", "card digits"),
        ("  flip:", "--with flip"),
        ("  hpcl:", "recipe fedhpro"),
        ("  card: digits", "card digits"),
    ],
)
def test_each_value_has_its_layer(explain, line, source):
    lines = explain(sets=["sgd.lr=0.1", "seed=4"], flags={"rounds": 3}, plus=["flip"])
    assert any(shown.split("#") == [f"{line:38}", f" {source}"] for shown in lines), lines


def test_plugins_that_are_gone_are_listed_with_who_removed_them(explain):
    lines = explain(without=["normalize"], plus=["domains", "flip"])
    assert lines[lines.index("# not in this run:") + 1 :] == [
        "# - hpal (recipe fedhpro): left out by mine.yaml:3",
        "# - normalize (card digits): left out by --without normalize",
        "# - iid (mine.yaml:5): replaced by domains (--with domains)",
    ]
    assert "# not in this run:" not in explain("recipe: fedavg\n")


def test_an_option_of_a_plugin_that_comes_back_is_a_default_again(explain):
    lines = explain(plus=["domains"])
    at = next(i for i, line in enumerate(lines) if line.startswith("  domains:"))
    assert lines[at].endswith("# --with domains")
    assert "default" in lines[at + 2], "the card set examples"


def test_an_option_of_another_model_is_a_default(explain):
    file = "recipe: fedavg\nmodel: {name: cnn, feature_size: 9}\n"
    assert f"{'  feature_size: 9':38}# mine.yaml:2" in explain(file)
    (line,) = [x for x in explain(file, flags={"model": "tiny_model"}) if "feature_size" in x]
    assert line.endswith("# default")


def test_long_values_and_names_have_their_comment_above_in_80_columns(explain, registry):
    name = "a-folder-with-a-long-name/" * 2 + "mine.yaml"
    mean = [0.123456789 + i for i in range(3)]
    lines = explain(sets=[f"normalize.mean={mean}"], source=name)
    assert [line for line in lines if len(line) > WIDTH] == []
    at = lines.index(f"    mean: {mean}")
    assert lines[at - 1].startswith("    #")


def test_a_name_cannot_write_lines_of_its_own(explain):
    lines = explain(source="a\nrounds: 1 #.yaml")
    assert any(r"a\nrounds: 1 #.yaml:6" in line for line in lines)


def test_the_command_prints_a_file_that_makes_the_same_config(tmp_path: Path):
    file = tmp_path / "m.yaml"
    file.write_text(FILE)

    def config(*words: str) -> str:
        done = CliRunner().invoke(main, ["config", str(file), *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    plain, commented = config(), config("--explain")
    assert "rounds: 15                            # card digits\n" in commented
    file.write_text(commented)
    assert config() == plain
