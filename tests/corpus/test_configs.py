"""Bad config files and flags: one clear line each, with the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedbench.study import TEMPORARY

P = """\
recipe: fedavg
data: tiny
model: tiny_model
executor: inline
"""
PLUGINS = "  domains: {clients_per_domain: 2}\n  uniform: {}\n"
FULL = P + "plugins:\n" + PLUGINS + "  sgd: {epochs: 1, batch_size: 8, lr: 0.05}\n"
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{c}: &{c} [*{p}, *{p}, *{p}, *{p}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)
)
DEEP = 700

FILES: dict[str, tuple[str | bytes, str]] = {
    # not YAML, or not a config
    "empty": ("", "the file is empty"),
    "only a comment": ("# nothing\n", "the file is empty"),
    "only a document mark": ("---\n", "the top level"),
    "a list": ("- a\n- b\n", "expected a mapping"),
    "a word": ("fedavg\n", "expected a mapping"),
    "a number": ("12\n", "expected a mapping"),
    "open list": ("a: [1, 2\n", ":2: not valid YAML"),
    "open mapping": ("a: {b: 1\n", ":2: not valid YAML"),
    "open quote": ('a: "b\n', "not valid YAML"),
    "open single quote": ("a: 'b\n", "not valid YAML"),
    "colon in a value": ("a: b: c\n", ":1: not valid YAML"),
    "a tab": ("a: 1\n\tb: 2\n", ":2: not valid YAML"),
    "bad indentation": ("a:\n  b: 1\n c: 2\n", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2\n", ":2: not valid YAML"),
    "a version of YAML that is not there": ("%YAML 9.9\n---\na: 1\n", "not valid YAML"),
    "an unknown directive twice": ("%TAG ! x\n%TAG ! y\n---\na: 1\n", "not valid YAML"),
    "reserved @": ("@a: 1\n", "not valid YAML"),
    "reserved `": ("`a: 1\n", "not valid YAML"),
    "a bad escape": ('a: "\\q"\n', "not valid YAML"),
    "zero bytes": (b"a: \x00\x00\n", "not valid YAML"),
    "control characters": (b"a: \x01\x02\n", "not valid YAML"),
    "escape sequences of a terminal": (b"a: \x1b[31mred\n", "not valid YAML"),
    "latin-1": ("méthode: 1\n".encode("latin-1"), "cannot be read"),
    "utf-16": ("a: 1\n".encode("utf-16"), "cannot be read"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "cannot be read"),
    "a zip file": (b"PK\x03\x04\x14\x00\x00\x00\x08\x00\xff\xff", "cannot be read"),
    "cut in a character": ("a: é".encode()[:-1], "cannot be read"),
    "half a surrogate": ('method: "\\uD800"\n', "a lone surrogate"),
    "half a surrogate in a key": ('"\\uDFFF": 1\n', "a lone surrogate"),
    "five megabytes": ("a: " + "x" * 5_000_000, "longer than 4000000"),
    "deep lists": ("a: " + "[" * DEEP + "]" * DEEP, "nested too deeply"),
    "deep mappings": ("a: " + "{a: " * DEEP + "1" + "}" * DEEP, "nested too deeply"),
    "deep blocks": ("".join(" " * n + "a:\n" for n in range(DEEP)), "nested too deeply"),
    # aliases, tags
    "a billion laughs": (LAUGHS, ":2: aliases (*a) are not allowed"),
    "itself": ("a: &a [*a]\n", "aliases (*a) are not allowed"),
    "an alias to nothing": ("a: *nothing\n", "aliases (*nothing) are not allowed"),
    "a merge with an alias": ("a: &a {b: 1}\nc:\n  <<: *a\n", ":3: aliases (*a)"),
    "a merge": (P + "<<: {rounds: 1}\n", "unknown key"),
    "a default value": (P + "=: 1\n", "unknown key"),
    "os.system": ("a: !!python/object/apply:os.system ['touch CANARY']\n", "tags ("),
    "subprocess": (
        "a: !!python/object/new:subprocess.Popen [['touch', 'CANARY']]\n",
        "tags (tag:yaml.org,2002:python/object/new:subprocess.Popen) are not allowed",
    ),
    "eval": ("a: !!python/object/apply:eval ['open(\"CANARY\", \"w\")']\n", "tags ("),
    "a python name": ("a: !!python/name:os.system\n", "tags ("),
    "a python module": ("a: !<tag:yaml.org,2002:python/module:os>\n", "tags ("),
    "a tag of its own": ("a: !mine 1\n", "tags (!mine)"),
    "binary": ("a: !!binary aGVsbG8=\n", "tags ("),
    "a set": ("a: !!set {a, b}\n", "tags ("),
    "a timestamp": ("a: !!timestamp 2020-01-01\n", "tags ("),
    "an int by its tag": (P + "rounds: !!int 3\n", ":5: tags ("),
    "a tag on the whole file": ("!!map\na: 1\n", ":1: tags ("),
    # keys
    "a key twice": (P + "data: digits\n", ":5: key 'data' appears twice"),
    "a key twice below": (FULL + "  sgd: {}\n", ":9: key 'sgd' appears twice"),
    "a list as a key": ("? [a]\n: 1\n", ":1: a key must be text"),
    "a mapping as a key": ("? {a: 1}\n: 1\n", ":1: a key must be text"),
    "true as a key": ("true: 1\n", ":1: a key must be text"),
    "null as a key": ("~: 1\n", ":1: a key must be text"),
    "a float as a key": ("1.5: 1\n", ":1: a key must be text"),
    "an empty key": (P + '"": 1\n', ":5: "),
    "a number as a key": (P + "12: 1\n", ":5: 12: unknown key"),
    "a key with a typo": (P + "ronds: 3\n", ":5: ronds: unknown key (did you mean 'rounds'?)"),
    "a key in Cyrillic": (P + "sееd: 3\n", "unknown key"),
    "a very long key": (P + "x" * 900 + ": 3\n", "unknown key"),
    # numbers
    **{
        f"rounds: {value}": (FULL + f"rounds: {value}\n", ":9: rounds: ")
        for value in (
            "0", "-1", "1.5", "ten", "[1]", "{a: 1}", "true", "1:30", "1_000", "0b11", "'3'",
            "null", ".inf", ".nan", "1e999", "9" * 30, "9" * 5000, "2020-01-01",
        )
    },
    **{
        f"seed: {value}": (FULL + f"seed: {value}\n", ":9: seed: ")
        for value in ("-1", "9223372036854775808", "0.5", "x", "false", "[]", "1e3000")
    },
    **{
        f"sgd.lr: {value}": (FULL.replace("0.05", value), ":8: plugins.sgd.lr: ")
        for value in ("-0.1", "0", "fast", "true", "[0.1]", "{a: 1}", "null", ".nan", "0.1.2")
    },
    **{
        f"sgd.batch_size: {value}": (
            FULL.replace("batch_size: 8", f"batch_size: {value}"), ":8: plugins.sgd.batch_size: "
        )
        for value in ("0", "-8", "1.5", "all", "true")
    },
    # names
    **{
        f"{key}: {value}": (FULL.replace(f"{key}: {old}", f"{key}: {value}"), f":{line}: {key}")
        for line, key, old, values in (
            (1, "recipe", "fedavg", ("fedavgg", "../../etc/passwd", "5", "[a]", "{a: 1}", "''")),
            (2, "data", "tiny", ("tinny", "../../../etc/passwd", "5", "[a]", "''")),
            (3, "model", "tiny_model", ("/etc/passwd", "5", "[a]", "{}", "{name: 5}", "null")),
            (4, "executor", "inline", ("remote", "5", "[a]", "../x", "''")),
        )
        for value in values
    },
    "card: ../../x": (FULL + "card: ../../x\n", ":9: card: no card '../../x'"),
    "card: 5": (FULL + "card: 5\n", ":9: card: "),
    "card: [a]": (FULL + "card: [a]\n", ":9: card: "),
    "a name of a zero byte": (FULL.replace("tiny\n", '"tiny\\0"\n'), ":2: data: "),
    "a name right to left": (FULL.replace("data: tiny", 'data: "\\u202Eynit"'), ":2: data: "),
    "a name in full width": (FULL.replace("data: tiny", "data: ｔｉｎｙ"), ":2: data: "),
    "a name of many lines": (FULL.replace("data: tiny", 'data: "a\\nb\\nc"'), ":2: data: "),
    # options of choices
    "workers: 0": (FULL.replace("inline", "{name: pool, workers: 0}"), ":4: executor.workers: "),
    "workers: many": (FULL.replace("inline", "{name: pool, workers: x}"), ":4: executor.workers"),
    "feature_size: 0": (
        FULL.replace("tiny_model", "{name: tiny_model, feature_size: 0}"), ":3: model.feature_size"
    ),
    "a model as large as the world": (
        FULL.replace("tiny_model", "{name: tiny_model, feature_size: 999999999999}"), "memory"
    ),
    "an option that is not there": (
        FULL.replace("tiny_model", "{name: tiny_model, depth: 3}"), ":3: model.depth: unknown"
    ),
    "examples: 0": (FULL.replace("data: tiny", "data: {name: tiny, examples: 0}"), ":2: data.ex"),
    "more clients than examples": (
        FULL.replace("clients_per_domain: 2", "clients_per_domain: 1000000"), ""
    ),
    "no clients": (FULL.replace("clients_per_domain: 2", "clients_per_domain: 0"), ":6: plugins"),
    # plugins
    "an unknown plugin": (FULL + "  sgdd: {}\n", ":9: plugins.sgdd: no plugin 'sgdd' (did you"),
    "plugins: a list": (P + "plugins: [sgd]\n", ":5: plugins"),
    "plugins: a word": (P + "plugins: sgd\n", ":5: plugins"),
    "plugins: a number": (P + "plugins: 5\n", ":5: plugins"),
    "options that are a number": (P + "plugins:\n  sgd: 5\n", ":6: plugins.sgd"),
    "options that are a list": (P + "plugins:\n  sgd: [lr]\n", ":6: plugins.sgd"),
    "an unknown option": (FULL.replace("lr:", "lrr:"), ":8: plugins.sgd.lrr: unknown option"),
    "two that aggregate": (FULL + "  mean: {}\n  personal: {}\n", ":10: plugins.personal: imp"),
    "two partitions": (FULL + "  dirichlet: {}\n", "and so does 'domains' (bad.yaml:6)"),
    "none that trains": (P + "plugins:\n" + PLUGINS, "no plugin implements 'train'"),
    "fraction: 0": (FULL.replace("uniform: {}", "uniform: {fraction: 0}"), ":7: plugins.uniform"),
    "fraction: 2": (FULL.replace("uniform: {}", "uniform: {fraction: 2}"), ":7: plugins.uniform"),
    # the rest
    "method: ''": (FULL + "method: ''\n", ":9: method: "),
    "method: 5": (FULL + "method: 5\n", ":9: method: "),
    "method: [a]": (FULL + "method: [a]\n", ":9: method: "),
    "device: tpu": (FULL + "device: tpu9\n", "device 'tpu9' cannot be used here"),
    "device: cuda:99": (FULL + "device: cuda:99\n", "device 'cuda:99' cannot be used here"),
    "device: 5": (FULL + "device: 5\n", ":9: device: "),
    "device: ''": (FULL + "device: ''\n", "device"),
    "precision: fp8": (FULL + "precision: fp8\n", ":9: precision: "),
    "accuracy: best": (FULL + "accuracy: best\n", ":9: accuracy: "),
    "accuracy.rule": (FULL + "accuracy: {rule: worst}\n", ":9: accuracy.rule: "),
    "accuracy.k": (FULL + "accuracy: {k: 0}\n", ":9: accuracy.k: "),
    "accuracy.metric": (FULL + "accuracy: {metric: acuracy}\n", ":9: accuracy.metric: "),
    "accuracy.inference": (FULL + "accuracy: {inference: oracle}\n", "accuracy.inference: "),
    "accuracy, a typo": (FULL + "accuracy: {rul: last}\n", ":9: accuracy.rul: unknown option"),
    "accuracy of lists": (FULL + "accuracy: {metric: class_accuracy}\n", "accuracy.metric: "),
    "metrics: unknown": (FULL + "metrics: {acuracy: {}}\n", ":9: metrics.acuracy: no metric"),
    "metrics: a list": (FULL + "metrics: [accuracy]\n", ":9: metrics"),
    "metrics: a number below": (FULL + "metrics: {accuracy: 5}\n", ":9: metrics.accuracy"),
    "metrics: an option": (FULL + "metrics: {accuracy: {a: 1}}\n", ":9: metrics.accuracy.a: "),
    "origin: a number": (FULL + "origin: 5\n", ":9: origin"),
    "origin: a list below": (FULL + "origin: {recipe: [1]}\n", ":9: origin.recipe: "),
    "failures: a word": (FULL + "failures: often\n", ":9: failures"),
    "no recipe and no plugins": ("data: tiny\n", "name a method"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FILES))
def test_a_bad_config_file(name: str, sandbox: Any) -> None:
    content, text = FILES[name]
    data = content if isinstance(content, bytes) else content.encode()
    Path("bad.yaml").write_bytes(data)
    status = TEMPORARY if text == "memory" else 1  # another machine may have enough
    line = sandbox.refused(["run", "bad.yaml", "--out", "run"], text, status=status)
    if text.startswith(":"):
        assert line.startswith(f"Error: bad.yaml{text.split(' ')[0]}"), line


FLAGS: list[tuple[list[str], int, str]] = [
    (["run"], 2, "Missing argument"),
    (["run", "fedavg", "fedprox"], 2, "unexpected extra argument"),
    (["run", ""], 1, "name a method"),
    (["run", "../../etc/passwd"], 1, "no method '../../etc/passwd'"),
    (["run", "f\u0435davg"], 1, "no method"),
    (["run", "x" * 500 + ".yaml"], 1, "File name too long"),
    (["run", "missing.yaml"], 1, "missing.yaml: no such file"),
    (["run", "."], 1, "no method '.'"),
    (["run", "fedavg", "--config", "missing.yaml"], 1, "missing.yaml: no such file"),
    (["run", "fedavg", "--config", "."], 1, ".: cannot be read"),
    (["run", "fedavg", "--config", "/dev/zero"], 1, "/dev/zero: longer than"),
    (["run", "fedavg", "--rounds", "x"], 2, "--rounds"),
    (["run", "fedavg", "--rounds", "0"], 1, "rounds: "),
    (["run", "fedavg", "--rounds", "-5"], 1, "rounds: "),
    (["run", "fedavg", "--rounds", "9" * 40], 1, "rounds: "),
    (["run", "fedavg", "--seed", "-1"], 1, "seed: "),
    (["run", "fedavg", "--seed", "1e3"], 2, "--seed"),
    (["run", "fedavg", "--workers", "0"], 1, "workers: "),
    (["run", "fedavg", "--workers", "-1"], 1, "workers: "),
    (["run", "fedavg", "--precision", "fp8"], 1, "precision: "),
    (["run", "fedavg", "--executor", "cloud"], 1, "no executor 'cloud'"),
    (["run", "fedavg", "--device", "cuda:99"], 1, "device 'cuda:99'"),
    (["run", "fedavg", "--card", "../digits"], 1, "no card '../digits'"),
    (["run", "fedavg", "--data", "../digits"], 1, "no data set '../digits'"),
    (["run", "fedavg", "--set", ""], 1, "--set : write"),
    (["run", "fedavg", "--set", "sgd.lr"], 1, "--set sgd.lr: write"),
    (["run", "fedavg", "--set", "=1"], 1, "--set =1: write"),
    (["run", "fedavg", "--set", "sgd..lr=1"], 1, "--set sgd..lr=1: write"),
    (["run", "fedavg", "--set", "sgd.lr=!!python/name:os.system"], 1, "tags"),
    (["run", "fedavg", "--set", "sgd.lr=*a"], 1, "aliases (*a)"),
    (["run", "fedavg", "--set", "sgd.lr=[" + "[" * 900], 1, "--set sgd.lr="),
    (["run", "fedavg", "--set", "sgd.lr=1\nrounds: 5"], 1, "--set sgd.lr=1"),
    (["run", "fedavg", "--set", "sgd.lr.deep=1"], 1, "sgd.lr"),
    (["run", "fedavg", "--set", "plugins=5"], 1, "plugins"),
    (["run", "fedavg", "--without", "sgdd"], 1, "--without sgdd"),
    (["run", "fedavg", "--without", ""], 1, "--without"),
    (["run", "fedavg", "--checkpoint-rounds", "0"], 2, "--checkpoint-rounds"),
    (["run", "fedavg", "--checkpoint-minutes", "-1"], 2, "--checkpoint-minutes"),
    (["run", "fedavg", "--out", "/proc/run"], 1, "/proc/run cannot be written"),
    (["run", "fedavg", "--out", "/dev/null"], 1, "/dev/null already exists"),
    (["run", "fedavg", "--out", "x" * 300], 1, "File name too long"),
    (["resume", "missing"], 1, "missing holds no run"),
    (["resume", "/dev/null"], 1, "/dev/null holds no run"),
    (["resume", "."], 1, ". holds no run"),
    (["show", "missing"], 1, "missing holds no run"),
    (["report", "missing"], 1, "missing holds no run"),
    (["report"], 2, "Missing argument"),
    (["compare"], 2, "name the methods"),
    (["compare", "fedavgg"], 1, "no method 'fedavgg'"),
    (["compare", "fedavg:"], 1, "must be -PLUGIN, +PLUGIN or KEY=VALUE"),
    (["compare", "fedavg:sgd.lr"], 1, "must be -PLUGIN, +PLUGIN or KEY=VALUE"),
    (["compare", "fedavg:+"], 1, "'+' must be -PLUGIN, +PLUGIN or KEY=VALUE"),
    (["compare", "fedavg:+faultz"], 1, "no plugin 'faultz' (did you mean 'faults'?)"),
    (["compare", "fedavg:reordered"], 1, "another order of plugins has no short form"),
    (["compare", "none.yaml"], 1, "none.yaml: no such file"),
    (["compare", "fedavg", "--seeds", "0"], 1, "seeds"),
    (["compare", "fedavg", "--seeds", "x"], 2, "--seeds"),
    (["compare", "fedavg", "--seeds", "1,-2"], 1, "seed"),
    (["compare", "fedavg", "--jobs", "0"], 2, "--jobs"),
    (["compare", "fedavg", "--reference", "fpl"], 1, "the reference 'fpl'"),
    (["compare", "fedavg", "--config", "missing.yaml"], 1, "missing.yaml: no such file"),
    (["config"], 2, "name a method"),
    (["plugins", "show", "../x"], 1, "nothing installed is called '../x'"),
    (["cards", "../../etc/passwd"], 1, "no card '../../etc/passwd'"),
    (["data", "show", "../x"], 1, "no data set '../x'"),
    (["data", "fetch", "../x"], 1, "no data set '../x'"),
]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    FLAGS,
    ids=[" ".join(w)[:60].replace("\n", " ") for w, _, _ in FLAGS],
)
def test_bad_flags(words: list[str], status: int, text: str, sandbox: Any) -> None:
    sandbox.refused(words, text, status=status)


GRIDS = {
    "no methods": ("seeds: 3\n", "methods"),
    "methods: a word": ("methods: fedavg\n", "bad.yaml:1: methods"),
    "methods: none": ("methods: []\n", "bad.yaml:1: methods"),
    "methods: numbers": ("methods: [1, 2]\n", "bad.yaml:1: methods"),
    "an unknown key": ("methods: [fedavg]\nseed: 3\n", "bad.yaml:2: seed: unknown option"),
    "seeds: 0": ("methods: [fedavg]\nseeds: 0\n", "seeds must be at least 1"),
    "seeds: words": ("methods: [fedavg]\nseeds: [a]\n", "bad.yaml:2: seeds"),
    "options: a list": ("methods: [fedavg]\noptions: [sgd.lr]\n", "bad.yaml:2: options"),
    "options: one value": ("methods: [fedavg]\noptions: {sgd.lr: 1}\n", "bad.yaml:2: options"),
    "an unknown option": ("methods: [fedavg]\noptions: {sgd.x: [1]}\n", "sgd.x"),
    "partitions: unknown": ("methods: [fedavg]\npartitions: [{nope: {}}]\n", "nope"),
    "test": ("methods: [fedavg]\ntest: anova\n", "bad.yaml:2: test"),
    "a tag": ("methods: !!python/tuple [fedavg]\n", "bad.yaml:1: tags"),
    "an alias": ("methods: &a [fedavg]\ndata: *a\n", "bad.yaml:2: aliases"),
}


@pytest.mark.parametrize("name", list(GRIDS))
def test_a_bad_grid(name: str, sandbox: Any) -> None:
    content, text = GRIDS[name]
    Path("bad.yaml").write_text(content)
    sandbox.refused(["compare", "--config", "bad.yaml"], text)


@pytest.mark.parametrize("label", ["../../outside/x", "/etc/x", "..", "a\nb", "x" * 400, "\u202e"])
def test_a_label_cannot_leave_the_folder_of_runs(label: str, sandbox: Any) -> None:
    """A method's label may be anything; the folder that is named after it stays in ``runs``."""
    from click.testing import CliRunner

    from fedbench.cli import main

    Path("mine.yaml").write_text(FULL + "rounds: 1\n")
    import json

    with Path("mine.yaml").open("a") as file:
        file.write(f"method: {json.dumps(label)}\n")
    done = CliRunner().invoke(main, ["run", "mine.yaml", "--quiet"])
    assert done.exit_code == 0, done.output
    (run,) = Path("runs").iterdir()
    assert (run / "result.json").is_file()
    assert sorted(p.name for p in sandbox.outside.iterdir()) == [
        "home", "precious", "state-9.safetensors"
    ]  # fmt: skip
