"""Names, files and flags are resolved into one config; an error names file, line and key."""

from __future__ import annotations

from typing import Any

import pytest

from fedbench.config import yamlfile
from fedbench.config.cards import load_card
from fedbench.config.changes import describe_changes
from fedbench.config.model import RunConfig
from fedbench.config.resolve import resolve
from fedbench.errors import ConfigError
from fedbench.types import Recipe


def from_text(registry, text: str, **more: Any) -> RunConfig:
    return resolve(registry, file=yamlfile.parse(text, "mine.yaml"), **more)


def again(registry, config: RunConfig) -> RunConfig:
    return from_text(registry, config.to_yaml())


# --- layers --------------------------------------------------------------------------------------


def test_each_layer_wins_over_the_one_below(registry):
    class Folder:
        def read_text(self, encoding: str) -> str:
            return (
                "card: small\nversion: 1\ntitle: t\nreasons: {}\n"
                "config:\n  data: tiny\n  model: tiny_model\n  rounds: 11\n  seed: 1\n"
                "  plugins:\n    domains: {examples: 6}\n    uniform: {}\n"
                "    sgd: {lr: 0.1, momentum: 0.1, epochs: 1, batch_size: 1, weight_decay: 0.1}\n"
            )

    recipe = Recipe(
        {
            "exchange": {},
            "mean": {},
            "cross_entropy": {},
            "sgd": {"lr": 0.2, "momentum": 0.2, "epochs": 2},
        },
        "about",
        "source",
    )
    put(registry, "card", "small", Folder())
    put(registry, "recipe", "mine", recipe)
    file = "recipe: mine\ncard: small\nplugins:\n  sgd: {lr: 0.3, momentum: 0.3}\nrounds: 13\n"
    config = from_text(registry, file, sets=["sgd.lr=0.4", "rounds=14"], flags={"rounds": 15})
    sgd = config.plugins["sgd"]
    assert sgd["weight_decay"] == 0.1, "card"
    assert sgd["epochs"] == 2, "recipe over card"
    assert sgd["momentum"] == 0.3, "file over recipe"
    assert sgd["lr"] == 0.4, "--set over file"
    assert config.rounds == 15, "flag over --set"
    assert config.seed == 1
    assert sgd["drop_last"] is False, "the plugin's default at the bottom"
    assert config.method == "mine"
    # a plugin stays where the first layer put it; new ones come after
    assert list(config.plugins) == [
        "domains",
        "uniform",
        "sgd",
        "exchange",
        "mean",
        "cross_entropy",
    ]
    assert config.origin["recipe"] == "mine"
    assert config.origin["card"] == "small"


def put(registry, kind: str, name: str, value: object) -> None:
    from fedbench.plugins.registry import Entry

    registry.entries[kind, name] = [Entry(kind, name, value, "tests", "")]


def test_a_recipe_can_replace_the_cards_plugins(registry):
    put(
        registry,
        "recipe",
        "alone",
        Recipe({"exchange": {}, "mean": {}}, "a", "s", without=("sgd",)),
    )
    with pytest.raises(ConfigError, match=r"^no plugin implements 'train';"):
        resolve(registry, "alone")


def test_set_sets_options_of_what_a_flag_chooses(registry):
    more = {"flags": {"model": "tiny_model"}, "sets": ["model.feature_size=3"]}
    model = resolve(registry, "fedavg", **more).model
    assert (model["name"], model["feature_size"]) == ("tiny_model", 3)


def test_naming_another_choice_drops_the_options_of_the_first(registry):
    file = "recipe: fedavg\nmodel: {name: cnn, width: 8}\n"
    assert from_text(registry, file).model["width"] == 8
    assert from_text(registry, file, flags={"model": "cnn"}).model["width"] == 8
    assert from_text(registry, file, flags={"model": "resnet10"}).model == {
        "name": "resnet10",
        "filters": 32,
        "norm": "batch",
    }


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("sgd.lr=1e-3", ("plugins", "sgd", "lr"), 0.001),
        ("plugins.sgd.lr=0.5", ("plugins", "sgd", "lr"), 0.5),
        ("sgd.schedule=cosine", ("plugins", "sgd", "schedule"), "cosine"),
        ("normalize.mean=[0.1, 0.2, 0.3]", ("plugins", "normalize", "mean"), [0.1, 0.2, 0.3]),
        ("model.width=8", ("model", "width"), 8),
        ("model=resnet10", ("model", "name"), "resnet10"),
        ("accuracy.rule=best", ("accuracy", "rule"), "best"),
        ("seed=7", ("seed",), 7),
        ("domains.clients_per_domain={mnist: 3}", ("plugins", "domains", "clients_per_domain"),
         {"mnist": 3}),
    ],
)  # fmt: skip
def test_set_reaches_any_value(installed, text, path, value):
    found: Any = resolve(installed, "fedavg", sets=[text]).to_dict()
    for key in path:
        found = found[key]
    assert found == value


def test_the_default_data_set_and_its_card_are_used(installed):
    config = resolve(installed, "fedavg")
    assert config.data_name == "digits"
    assert config.origin["card"] == "digits"
    assert config.origin["card_hash"] == load_card(installed, "digits").hash


# --- the resolved file ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fedavg", "fedhpro", "fedhpro-published"])
def test_the_resolved_file_reads_back_to_the_same_config(installed, method):
    config = resolve(installed, method, sets=["sgd.lr=1e-5", "seed=3"])
    file = again(installed, config)
    assert file.to_yaml() == config.to_yaml()
    assert file.hash == config.hash


def test_the_resolved_file_needs_no_card_and_no_recipe(installed, registry):
    text = resolve(installed, "fedavg").to_yaml()
    del registry.entries["recipe", "fedavg"]
    del registry.entries["card", "digits"]
    config = from_text(registry, text)
    assert config.hash == resolve(installed, "fedavg").hash
    assert describe_changes(registry, config) == ["unknown recipe"]


def test_deleting_a_line_of_the_resolved_file_is_the_ablation(installed):
    whole = resolve(installed, "fedhpro")
    data = whole.to_dict()
    del data["plugins"]["hpal"]
    by_hand = from_text(installed, yamlfile.dump(data))
    by_flag = resolve(installed, "fedhpro", without=["hpal"])
    assert by_hand.to_yaml() == by_flag.to_yaml()
    assert by_hand.hash == by_flag.hash != whole.hash
    assert describe_changes(installed, by_hand) == ["-hpal"]


def test_the_hash_covers_what_the_result_depends_on_and_nothing_else(installed):
    base = resolve(installed, "fedavg")
    data = base.to_dict()

    def changed(**given: Any) -> str:
        return from_text(installed, yamlfile.dump({**data, **given})).hash

    assert changed(method="another label", origin={}) == base.hash
    for other in (
        {"seed": 1},
        {"rounds": 3},
        {"accuracy": {"rule": "last"}},
        {"model": "resnet10"},
    ):
        assert changed(**other) != base.hash
    order = dict(reversed(data["plugins"].items()))
    assert changed(plugins=order) != base.hash, "plugins run in their order"


# --- in words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        ({}, []),
        ({"flags": {"seed": 5}}, []),
        ({"without": ["hpal"]}, ["-hpal"]),
        ({"without": ["hpal", "hpcl"]}, ["-hpcl", "-hpal"]),
        ({"sets": ["hpcl.temperature=0.1"]}, ["hpcl.temperature=0.1"]),
        ({"sets": ["hpcl.temperature=0.05"]}, []),
        ({"flags": {"rounds": 5}}, ["rounds=5"]),
        (
            {"flags": {"model": "resnet10"}},
            ['model={"name": "resnet10", "filters": 32, "norm": "batch"}'],
        ),
        ({"file": "plugins: {tiny_watch: {}}"}, ["+tiny_watch"]),
    ],
    ids=str,
)
def test_changes_against_the_recipe_in_words(registry, add, more, changes):
    from dataclasses import dataclass

    from fedbench.hookspecs import hookimpl

    @dataclass(frozen=True, eq=False)
    class Watch:
        @hookimpl
        def round_end(self): ...

    add(tiny_watch=Watch)
    if "file" in more:
        more = {"file": yamlfile.parse(more["file"], "mine.yaml")}
    assert describe_changes(registry, resolve(registry, "fedhpro", **more)) == changes


def test_another_order_of_plugins_is_a_change(installed):
    data = resolve(installed, "fedhpro").to_dict()
    data["plugins"] = {"uniform": data["plugins"].pop("uniform"), **data["plugins"]}
    assert describe_changes(installed, from_text(installed, yamlfile.dump(data))) == ["reordered"]


def test_a_config_without_a_recipe_has_nothing_to_compare_with(registry, tiny_config):
    assert describe_changes(registry, tiny_config(registry)) == []


# --- errors --------------------------------------------------------------------------------------

FILE_ERRORS = [
    ("roundss: 1", "mine.yaml:2: roundss: unknown key (did you mean 'rounds'?)"),
    ("rounds: many", "mine.yaml:2: rounds: input should be a valid integer, got 'many'"),
    ("rounds: 0", "mine.yaml:2: rounds: input should be greater than or equal to 1, got 0"),
    ("seed: -1", "mine.yaml:2: seed: input should be greater than or equal to 0, got -1"),
    ("data: digitz", "mine.yaml:2: data: no data set 'digitz' (did you mean 'digits'?)"),
    ("data: {name: digits, x: 1}", "mine.yaml:2: data.x: unknown option (it has no options)"),
    ("model: cnnn", "mine.yaml:2: model: no model 'cnnn' (did you mean 'cnn'?)"),
    (
        "model:\n  name: cnn\n  width: 0",
        "mine.yaml:4: model.width: input should be greater than or equal to 1, got 0",
    ),
    ("card: digit", "mine.yaml:2: card: no card 'digit' (did you mean 'digits'?)"),
    ("executor: inlin", "mine.yaml:2: executor: no executor 'inlin' (did you mean 'inline'?)"),
    (
        "metrics:\n  acuracy: {}",
        "mine.yaml:3: metrics.acuracy: no metric 'acuracy' (did you mean 'accuracy'?)",
    ),
    (
        "accuracy:\n  metric: los",
        "mine.yaml:3: accuracy.metric: 'los' is not among the metrics (did you mean 'loss'?)",
    ),
    (
        "accuracy:\n  rulle: best",
        "mine.yaml:3: accuracy.rulle: unknown option (did you mean 'rule'?)",
    ),
    (
        "accuracy:\n  rule: bst",
        "mine.yaml:3: accuracy.rule: input should be 'last', 'last_k' or 'best', got 'bst'",
    ),
    ("plugins:\n  sgdd: {}", "mine.yaml:3: plugins.sgdd: no plugin 'sgdd' (did you mean 'sgd'?)"),
    (
        "plugins:\n  sgd:\n    epochs: 1\n    lrr: 1",
        "mine.yaml:5: plugins.sgd.lrr: unknown option (did you mean 'lr'?)",
    ),
    (
        "plugins:\n  sgd:\n    lr: -0.1",
        "mine.yaml:4: plugins.sgd.lr: input should be greater than 0, got -0.1",
    ),
    (
        "plugins:\n  sgd:\n    lr: fast",
        "mine.yaml:4: plugins.sgd.lr: input should be a valid number, got 'fast'",
    ),
    ("plugins:\n  sgd: {lr: .nan}", "mine.yaml:3: plugins.sgd.lr: nan is not a finite number"),
    ("plugins:\n  sgd: 3", "mine.yaml:3: plugins.sgd: input should be an object, got 3"),
    ("plugins: [sgd]", "mine.yaml:2: plugins: input should be an object, got ['sgd']"),
    (
        "plugins:\n  domains:\n    fraction: 0.5",
        "mine.yaml:3: plugins.domains: give examples or fraction, not both",
    ),
    (
        "plugins:\n  domains:\n    clients_per_domain: {mnist: -1}",
        "mine.yaml:4: plugins.domains.clients_per_domain.mnist: input should be greater than or "
        "equal to 0, got -1",
    ),
]


@pytest.mark.parametrize(("text", "error"), FILE_ERRORS, ids=[t for t, _ in FILE_ERRORS])
def test_an_error_in_a_file_names_file_line_and_key(installed, text, error):
    with pytest.raises(ConfigError) as caught:
        from_text(installed, f"recipe: fedavg\n{text}")
    assert str(caught.value) == error


def test_an_unknown_method_names_the_nearest(installed):
    with pytest.raises(ConfigError) as caught:
        resolve(installed, "fedavgg")
    assert str(caught.value) == "no method 'fedavgg' (did you mean 'fedavg'?)"
    with pytest.raises(ConfigError) as caught:
        from_text(installed, "seed: 1\nrecipe: fedavgg")
    assert str(caught.value).startswith("mine.yaml:2: recipe: no method 'fedavgg' (did you mean")


SET_ERRORS = [
    ("sgd.lr=-1", "plugins.sgd.lr: input should be greater than 0, got -1"),
    ("sgd.lrr=1", "plugins.sgd.lrr: unknown option (did you mean 'lr'?)"),
    ("sgd.lr=.inf", "inf is not a finite number"),
    ("sgd.lr=[", "not valid YAML: expected the node content, but found '<stream end>'"),
    ("sgd.lr=*x", "aliases (*x) are not allowed"),
    ("sgdd.lr=1", "'sgdd' is not a plugin of this run (did you mean 'sgd'?)"),
    ("hpcl.temperature=1", "'hpcl' is not a plugin of this run"),
    ("rounds=x", "rounds: input should be a valid integer, got 'x'"),
    ("sgd.lr", "write plugin.option=value, for example sgd.lr=0.01"),
    ("sgd..lr=1", "write plugin.option=value, for example sgd.lr=0.01"),
    ("=1", "write plugin.option=value, for example sgd.lr=0.01"),
]


@pytest.mark.parametrize(("text", "error"), SET_ERRORS, ids=[t for t, _ in SET_ERRORS])
def test_an_error_in_set_repeats_what_was_given(installed, text, error):
    with pytest.raises(ConfigError) as caught:
        resolve(installed, "fedavg", sets=[text])
    assert str(caught.value).startswith(f"--set {text}: {error}")


def test_without_a_plugin_that_is_not_there(installed):
    with pytest.raises(ConfigError) as caught:
        resolve(installed, "fedhpro", without=["hpall"])
    assert str(caught.value) == (
        "--without hpall: it is not a plugin of this run (did you mean 'hpal'?)"
    )


def test_without_the_only_aggregator(installed):
    text = (
        "^no plugin implements 'aggregate'; a run needs exactly one: add one of .*mean,.* personal"
    )
    with pytest.raises(ConfigError, match=text):
        resolve(installed, "fedavg", without=["mean"])


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ({"data": "digitz"}, "no data set 'digitz' (did you mean 'digits'?)"),
        ({"model": "cnnn"}, "command line: model: no model 'cnnn' (did you mean 'cnn'?)"),
        ({"rounds": 0}, "command line: rounds: input should be greater than or equal to 1, got 0"),
    ],
    ids=str,
)
def test_an_error_in_a_flag(installed, flags, error):
    with pytest.raises(ConfigError) as caught:
        resolve(installed, "fedavg", flags=flags)
    assert str(caught.value) == error


def test_a_file_that_names_no_method_and_is_incomplete(installed):
    with pytest.raises(ConfigError, match=r"^mine\.yaml: name a method"):
        from_text(installed, "rounds: 3")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("card: x\nversionn: 1\n", "x.yaml:2: versionn: unknown option (did you mean 'version'?)"),
        ("card: x\nversion: 1\n", "x.yaml: title: field required"),
        ("card: x\nversion: one\n", "x.yaml:2: version: input should be a valid integer, got"),
        ("- card\n", "x.yaml: expected a mapping of keys at the top level"),
    ],
    ids=["unknown", "missing", "type", "list"],
)
def test_a_damaged_card_is_named(registry, text, error):
    class Card:
        def read_text(self, encoding: str) -> str:
            return text

        def __str__(self) -> str:
            return "x.yaml"

    put(registry, "card", "x", Card())
    with pytest.raises(ConfigError) as caught:
        load_card(registry, "x")
    assert str(caught.value).startswith(error)
