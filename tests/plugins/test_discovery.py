"""Packages are loaded one by one; a broken one, or a name registered twice, breaks nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedbench
from fedbench.config.resolve import resolve
from fedbench.config.yamlfile import parse
from fedbench.errors import ConfigError
from fedbench.plugins import registry as plugins
from fedbench.plugins.discovery import discover, sources
from fedbench.plugins.rules import RUN_HOOKS


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def offers(*names: str, head: str = "fedbench_api = 1") -> str:
    """Return a module that registers a plugin under each name."""
    return f'''
from dataclasses import dataclass
from fedbench import hookimpl
{head}

@dataclass(frozen=True, eq=False)
class Observer:
    """Observes."""

    @hookimpl
    def round_end(self, result): ...

@hookimpl
def register_plugins():
    return dict.fromkeys({names!r}, Observer)
'''


BROKEN = "raise ImportError(\"no module named 'left_pad'\\nand more\")"
WHY = "not loaded: broken (broken): ImportError: no module named 'left_pad' and more"


def test_a_broken_package_leaves_the_others_working(install):
    install("broken", BROKEN)
    install("fine", offers("watch"), version="3.2")
    registry = discover()
    assert registry.get("plugin", "watch").package == "fine"
    assert registry.get("plugin", "watch").version == "3.2"
    assert registry.get("plugin", "sgd").package == "fedbench-toolkit"
    assert registry.get("recipe", "fedavg")
    assert list(registry.failures) == ["broken (broken)"]


@pytest.mark.parametrize(
    ("default", "advice"),
    [
        ("['a']", "options never change: use tuple[str, ...] with a tuple as its default"),
        ("{'a': 1}", "use default_factory"),
    ],
)
def test_an_option_with_a_list_as_its_default_says_what_to_use(install, default, advice):
    install("broken", offers("watch").replace('"""Observes."""', f"names: object = {default}"))
    (why,) = discover().failures.values()
    assert why.startswith("ValueError: mutable default <class '")
    assert why.endswith(f"for field names is not allowed: {advice}")


def test_a_broken_package_is_named_only_when_something_unknown_is_requested(install):
    install("broken", BROKEN)
    registry = discover()
    text = f"no plugin 'sgdd' (did you mean 'sgd'?); {WHY}"
    with pytest.raises(ConfigError, match=exactly(text)):
        registry.get("plugin", "sgdd")


def test_a_package_that_breaks_a_rule_counts_as_broken(install):
    install("rude", offers("watch", "seed"))
    registry = discover()
    assert "watch" not in registry.names("plugin")
    assert registry.failures == {
        "rude (rude)": "PluginError: a plugin cannot be called 'seed': that is a top-level config "
        "key"
    }


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (
            "",
            "it does not state which hook API it was written for; its author should add the line "
            "`fedbench_api = 1` to the module that the entry point names",
        ),
        (
            "fedbench_api = 2",
            "it was written for hook API 2, but this fedbench has 1; upgrade fedbench-toolkit",
        ),
        ("fedbench_api = '1'", "fedbench_api must be a whole number like 1, got '1'"),
    ],
)
def test_a_package_states_the_hook_api_that_it_was_written_for(install, head, why):
    install("other", offers("watch", head=head))
    install("fine", offers("see"))
    registry = discover()
    assert registry.failures == {"other (other)": f"PluginError: {why}"}
    assert registry.get("plugin", "see")
    with pytest.raises(
        ConfigError, match=re.escape(f"not loaded: other (other): PluginError: {why}")
    ):
        registry.get("plugin", "watch")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise BaseException", "BaseException"),
        ("def f(:", "SyntaxError: invalid syntax (bad.py, line 1)"),
        ("def f(n): f(n)\nf(1)", "RecursionError: maximum recursion depth exceeded"),
        ("raise ValueError('\\n\\n\\x1b[31mred\\n')", r"ValueError: \x1b[31mred"),
        (
            "class Mute(Exception):\n    def __str__(self): raise KeyError\nraise Mute",
            "Mute: (its message cannot be read)",
        ),
    ],
)
def test_whatever_an_import_raises_is_reported_in_one_line(install, source, why):
    install("bad", source)
    install("fine", offers("watch"))
    registry = discover()
    assert registry.failures == {"bad (bad)": why}
    assert registry.get("plugin", "watch")


def test_ctrl_c_during_an_import_ends_the_program(install):
    install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discover()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("entry_points.txt", b"[fedbench]\nno equals sign\n"),
        ("entry_points.txt", b"[fedbench]\nx = \xff\n"),
        ("METADATA", b"\xff\xfe"),
    ],
)
def test_metadata_that_cannot_be_read_is_a_failure_of_its_package(install, file, content):
    install("fine", offers("watch"))
    folder = install("bad", offers("see"))
    (folder / "bad-1.0.dist-info" / file).write_bytes(content)
    registry = discover()
    assert registry.get("plugin", "watch")
    ((label, why),) = registry.failures.items()
    assert label == "bad-1.0.dist-info (entry_points.txt)"
    assert why.startswith("its metadata cannot be read: ")


@pytest.mark.parametrize("entry", ["?!", "missing", "bad:missing", "bad.inner", "bad:", ":x"])
def test_an_entry_point_that_names_nothing_is_a_failure_of_its_package(install, entry):
    install("bad", offers("see", head=""), entry=entry)
    install("fine", offers("watch"))
    registry = discover()
    assert list(registry.failures) == [f"bad ({entry})"]
    assert registry.get("plugin", "watch")


def test_two_packages_with_one_name_are_an_error_only_when_it_is_used(install):
    install("ours", offers("watch", "mine"))
    install("theirs", offers("watch"))
    registry = discover()
    assert registry.get("plugin", "mine").package == "ours"
    assert [e.package for e in registry.all("plugin") if e.name == "watch"] == ["ours", "theirs"]
    text = (
        "plugin 'watch' is provided by ours and theirs; uninstall one or limit the packages "
        "with FEDBENCH_PLUGINS"
    )
    with pytest.raises(ConfigError, match=exactly(text)):
        registry.get("plugin", "watch")


def test_one_package_that_registers_a_name_twice(install):
    folder = install("ours", offers("watch"))
    (folder / "more_of_ours.py").write_text(offers("watch"))
    listed = "[fedbench]\none = ours\ntwo = more_of_ours\n"
    (folder / "ours-1.0.dist-info/entry_points.txt").write_text(listed)
    with pytest.raises(ConfigError, match=exactly("plugin 'watch' is registered 2 times by ours")):
        discover().get("plugin", "watch")


# --- which packages are loaded -------------------------------------------------------------------


@pytest.mark.parametrize("given", ["ours", " ours , ", "OURS", "ours,fedbench_toolkit"])
def test_the_packages_can_be_limited(install, monkeypatch, given):
    install("ours", offers("watch"))
    install("theirs", offers("watch", "see"))
    install("broken", BROKEN)
    monkeypatch.setenv("FEDBENCH_PLUGINS", given)
    registry = discover()
    assert registry.get("plugin", "watch").package == "ours"
    assert registry.get("plugin", "sgd").package == "fedbench-toolkit"
    assert not registry.failures
    assert registry.left_out == ["broken (broken)", "theirs (theirs)"]
    assert "theirs" not in sys.modules
    left = "; left out by FEDBENCH_PLUGINS: broken (broken), theirs (theirs)"
    with pytest.raises(ConfigError, match=re.escape(left)):
        registry.get("plugin", "see")


def test_an_empty_limit_loads_the_bundled_packages_alone(install, monkeypatch):
    install("ours", offers("watch"))
    monkeypatch.setenv("FEDBENCH_PLUGINS", "")
    assert {e.package for found in discover().entries.values() for e in found} == {
        "fedbench-toolkit"
    }


def test_a_limit_that_names_no_package_is_an_error(install, monkeypatch):
    install("our-plugins", offers("watch"))
    monkeypatch.setenv("FEDBENCH_PLUGINS", "our-plugin")
    text = (
        "FEDBENCH_PLUGINS: no installed package 'our-plugin' has plugins (did you mean "
        "'our-plugins'?)"
    )
    with pytest.raises(ConfigError, match=exactly(text)):
        discover()


def test_sources_say_what_would_be_loaded_and_load_nothing(install, monkeypatch):
    folder = install("ours", "raise SystemExit", version="2.1")
    install("theirs", offers("watch"), entry="theirs:things")
    install("gone", "", entry="gone.json")  # there is gone, not gone.json
    monkeypatch.setenv("FEDBENCH_PLUGINS", "ours,gone")
    bundled, rest = sources()[:-3], sources()[-3:]
    assert {s.package for s in bundled} == {"fedbench-toolkit"}
    assert Path(fedbench.__file__).with_name("executors") / "__init__.py" in {
        Path(s.file) for s in bundled
    }
    assert [(s.package, s.version, s.value, s.file, s.loads) for s in rest] == [
        ("gone", "1.0", "gone.json", "", True),
        ("ours", "2.1", "ours", str(folder / "ours.py"), True),
        ("theirs", "1.0", "theirs:things", str(folder / "theirs.py"), False),
    ]
    assert not {"ours", "theirs", "gone"} & set(sys.modules)


def test_sources_import_no_plugin_package():
    code = (
        "import sys\nfrom fedbench.plugins.discovery import sources\n"
        "assert any(s.file.endswith('__init__.py') for s in sources())\n"
        "print([m for m in sys.modules if m.startswith('fedbench_') or m == 'torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_of_two_copies_of_a_package_the_first_on_the_path_counts(install, tmp_path, monkeypatch):
    install("ours", offers("old"), version="1.0")
    info = tmp_path / "Ours-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Ours\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[fedbench]\nours = ours\n")
    (tmp_path / "ours.py").write_text(offers("new"))
    monkeypatch.syspath_prepend(tmp_path)
    registry = discover()
    assert registry.get("plugin", "new").version == "2.0"
    assert "old" not in registry.names("plugin")


# --- a YAML file names what is installed and nothing else ----------------------------------------

CODE = ["os.system", "os:system", "../evil", "/srv/evil.py", "evil", "evil:Observer", "evil.py"]


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("recipe: fedavg\nplugins:\n  {name}: {{}}\n", "plugin"),
        ("recipe: fedavg\nmetrics:\n  {name}: {{}}\n", "metric"),
        ("recipe: fedavg\nmodel: {name}\n", "model"),
        ("recipe: fedavg\nmodel: {{name: {name}}}\n", "model"),
        ("recipe: fedavg\ndata: {name}\n", "data set"),
        ("recipe: fedavg\nexecutor: {name}\n", "executor"),
        ("recipe: {name}\n", "method"),
        ("recipe: fedavg\ncard: {name}\n", "card"),
    ],
)
def test_yaml_cannot_name_code(installed, tmp_path, monkeypatch, text, kind, name):
    trap = tmp_path / "loaded"
    (tmp_path / "evil.py").write_text(f"open({str(trap)!r}, 'w')\n" + offers("evil"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    document = parse(text.format(name=f"'{name}'"), "mine.yaml")
    with pytest.raises(ConfigError) as caught:
        resolve(installed, file=document)
    line = 3 if kind in ("plugin", "metric") else text.count("\n")
    assert str(caught.value).startswith(f"mine.yaml:{line}: ")
    assert f"no {kind} {name!r}" in str(caught.value)
    assert not trap.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [id]", "!!python/name:os.system", "!evil {}"]
)
def test_yaml_cannot_have_tags(tag):
    with pytest.raises(ConfigError, match=r"^mine\.yaml:2: tags \(.*\) are not allowed$"):
        parse(f"recipe: fedavg\nmodel: {tag}\n", "mine.yaml")


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("dataset", "digitz", "no data set 'digitz' (did you mean 'digits'?)"),
        ("recipe", "fedavgg", "no method 'fedavgg' (did you mean 'fedavg'?)"),
        ("model", "resnet-10", "no model 'resnet-10' (did you mean 'resnet10'?)"),
        ("metric", "accuracies", "no metric 'accuracies' (did you mean 'accuracy'?)"),
    ],
)
def test_an_unknown_name_names_the_nearest(installed, kind, name, text):
    with pytest.raises(ConfigError, match=exactly(text)):
        installed.get(kind, name)


def test_hooks_are_listed_in_the_order_of_a_round(installed):
    assert installed.get("plugin", "exchange").hooks == ["broadcast", "client_update"]
    assert installed.get("recipe", "fedavg").hooks == []
    assert RUN_HOOKS[-3:] == ("round_end", "conclude", "run_end")


def test_every_kind_has_a_discovery_hook():
    assert set(plugins.KINDS) == {
        *("plugin", "dataset", "model", "metric", "executor", "recipe", "card", "reproduction")
    }
