"""`fedbench new`: a package of the user's own that installs, passes its tests and runs."""

from __future__ import annotations

import re
from datetime import date
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ConfigError
from ..text import echo
from .base import Command
from .flags import installed
from .kinds import PATH

if TYPE_CHECKING:
    from ..plugins.registry import Registry

KINDS = {
    "method": ("recipe", "plugin"),
    "partition": ("plugin",),
    "dataset": ("dataset",),
    "model": ("model",),
    "metric": ("metric",),
    "executor": ("executor",),
}
"""What can be created -> the kinds of entry that it registers."""

COMMANDS = {
    "method": ("fedbench run {name} --data digits", "--set {name}.mu=0.01"),
    "partition": (
        "fedbench run fedavg --data digits --with {name} --set {name}.clients=8",
        "--set plugins.{name}.mixed=0.1",
    ),
    "dataset": ("fedbench run fedavg --data {name}", "--set data.noise=50"),
    "model": ("fedbench run fedavg --data digits --model {name}", "--set model.feature_size=32"),
    "metric": (
        "fedbench run fedavg --data digits --set metrics.{name}.k=2 --set accuracy.metric={name}",
        "--set metrics.accuracy={{}}",
    ),
    "executor": (
        "fedbench run fedavg --data digits --executor {name}",
        "--set executor.at_once=2",
    ),
}
"""What can be created -> the command that uses it, and a flag that changes it."""

_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(KINDS)), default="method", metavar="KIND",
    help=f"What the package adds, one of {', '.join(KINDS)}. Default: method.",
)  # fmt: skip
@click.option(
    "--out", type=PATH, metavar="DIR",
    help="Folder to write; it must not exist yet. Default: ./NAME.",
)  # fmt: skip
def new(name: str, kind: str, out: Path | None) -> None:
    """Write a package that adds a plugin called NAME.

    \b
    fedbench new my-method
    fedbench new my-split --kind partition
    fedbench new my-data --kind dataset --out packages/my-data

    The package works as it is: install it, run its tests, run it, then change it.
    """
    folder = out or Path(name)
    check_new_name(installed(), kind, name)
    files = write(folder, kind, name)
    echo(f"wrote {', '.join(files)} in {folder}")
    echo("next:")
    command = COMMANDS[kind][0].format(name=name)
    for line in (f"cd {folder}", "pip install -e '.[test]'", "pytest", command):
        echo(f"  {line}")


def check_new_name(registry: Registry, kind: str, name: str) -> None:
    """Check that a package of that name can be created.

    Raises:
        ConfigError: for an invalid or taken name, with a suggestion.
        PluginError: for a name that is a key of config files.
    """
    from ..plugins.rules import LABELS, check_name

    if len(name) > 40 or not _NAME.fullmatch(name):
        better = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-0123456789")[:40].rstrip("-")
        hint = f", for example {better!r}" if better else ""
        raise ConfigError(
            f"{name!r} is not a valid name: use at most 40 letters, digits, - and _, with a letter "
            f"first and a letter or digit last{hint}"
        )
    for registered in KINDS[kind]:
        check_name(registered, name)
        if (registered, name) in registry.entries:
            owner = registry.entries[registered, name][0].package
            raise ConfigError(
                f"there is already a {LABELS.get(registered, registered)} {name!r}, of {owner}; "
                f"choose another name, for example 'my-{name}'"
            )
    module, distribution = _module(name), _distribution(name)
    try:
        taken = f"package {distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        taken = f"module {module}" if util.find_spec(module) else ""
    if taken:
        raise ConfigError(
            f"the {taken} is already installed; choose another name, for example 'my-{name}'"
        )


def _module(name: str) -> str:
    return f"fedbench_{name.replace('-', '_').lower()}"


def _distribution(name: str) -> str:
    return f"fedbench-{re.sub(r'[-_]+', '-', name).lower()}"


def write(folder: Path, kind: str, name: str) -> list[str]:
    """Write the package into ``folder`` and return the names of its files.

    Raises:
        ConfigError: when the folder exists or cannot be written.
    """
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("fedbench.cli"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    module = _module(name)
    command, option = (text.format(name=name) for text in COMMANDS[kind])
    values = {
        "name": name,
        "kind": kind,
        "ident": name.replace("-", "_"),
        "cls": "".join(part[:1].upper() + part[1:] for part in re.split("[-_]+", name)),
        "module": module,
        "distribution": _distribution(name),
        "version": metadata.version("fedbench-toolkit"),
        "year": date.today().year,
        "command": command,
        "option": option,
    }
    made = {
        f"{module}.py": f"{kind}.py",
        f"test_{module}.py": "test_plugin.py",
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
    }
    try:
        folder.mkdir(parents=True)
        for file, template in made.items():
            text = templates.get_template(f"{template}.jinja").render(values)
            (folder / file).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise ConfigError(f"{folder} already exists; choose another --out") from None
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
    return list(made)
