"""The hooks that a plugin may implement, each with its documentation and an example.

``fedbench hooks`` and the documentation site are built from these descriptions.
"""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, did_you_mean
from ..hookspecs import OBSERVERS, SINGLE, DiscoveryHooks, RunHooks
from ..text import echo

EXAMPLES = Path(__file__).with_name("examples")
"""The folder with one module per hook; a test runs every one."""

KINDS = {
    "single": "exactly one base implementation per run; others may wrap it.",
    "at most one": "at most one plugin per run.",
    "observer": "any number of plugins, in YAML order; an observer changes nothing.",
    "list": "any number of plugins, in YAML order.",
    "package": "any number of packages.",
}
"""Kind of hook -> how many may implement it."""


@dataclass(frozen=True)
class Hook:
    """The facts about a hook that the author of a plugin needs.

    Args:
        name: the hook's name.
        kind: a key of `KINDS`.
        about: its purpose; the first line is a summary.
        when: when it is called.
        returns: what it must return.
        declaration: the function with its arguments, as Python code.
    """

    name: str
    kind: str
    about: str
    when: str
    returns: str
    declaration: str

    @property
    def example(self) -> Path:
        """The file with its example, a complete module."""
        return EXAMPLES / f"{self.name}.py"


def described(group: type) -> list[Hook]:
    """Return the hooks of `RunHooks`, in the order of a round, or of `DiscoveryHooks`."""
    found = []
    for name in (n for n in vars(group) if not n.startswith("_")):
        function = getattr(group, name)
        about, _, rest = (inspect.getdoc(function) or "").partition("\n\nWhen: ")
        when, _, returns = rest.partition("\nReturns: ")
        texts = (about, " ".join(when.split()), " ".join(returns.split()))
        found.append(Hook(name, _kind(group, name), *texts, _declaration(name, function)))
    return found


def _kind(group: type, name: str) -> str:
    if group is DiscoveryHooks:
        return "package"
    named = {"single": SINGLE, "observer": OBSERVERS}
    return next((kind for kind, names in named.items() if name in names), "list")


def _declaration(name: str, function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    given = [p for n, p in signature.parameters.items() if n != "self"]
    text = f"def {name}{signature.replace(parameters=given)}: ..."
    if len(text) > 88:
        arguments = ",\n    ".join(map(str, given))
        text = f"def {name}(\n    {arguments},\n) -> {signature.return_annotation}: ..."
    return text.replace("'", "")


def print_hooks() -> None:
    """Print one line per hook, in the order of a round."""
    _print_list("Hooks of a run; run plugins implement them as methods:", described(RunHooks))
    echo("")
    head = "Hooks of a package; the module in its entry point implements them as functions:"
    _print_list(head, described(DiscoveryHooks))
    echo("\n`fedbench hooks NAME` prints one of them, with an example.", lines=True)


def print_hook(name: str) -> None:
    """Print one hook with its documentation and its example.

    Raises:
        ConfigError: when there is no hook of that name.
    """
    known = {hook.name: hook for group in (RunHooks, DiscoveryHooks) for hook in described(group)}
    if name not in known:
        raise ConfigError(f"there is no hook {name!r}{did_you_mean(name, known)}")
    _print_hook(known[name])


def _print_list(head: str, found: list[Hook]) -> None:
    echo(head)
    for hook in found:
        echo(f"  {hook.name:<24}{hook.kind:<13}{hook.about.splitlines()[0]}")


def _print_hook(hook: Hook) -> None:
    parts = (
        f"{hook.name}: {hook.kind}",
        textwrap.indent(hook.declaration, "    "),
        textwrap.fill(" ".join(hook.about.split()), 88),
        "\n".join(
            textwrap.fill(f"{label}: {text}", 88, subsequent_indent="    ")
            for label, text in (
                ("When", hook.when),
                ("Returns", hook.returns),
                ("How many", KINDS[hook.kind]),
            )
        ),
        f"Example, {hook.example}:",
        hook.example.read_text(encoding="utf-8").rstrip(),
    )
    echo("\n\n".join(parts), lines=True)
