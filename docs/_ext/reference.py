"""Generate the reference pages from what is installed; nothing in them is written by hand."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import click

from fedbench import hookspecs, options, testing
from fedbench.cli import main
from fedbench.cli.hooks import KINDS as KINDS_OF_HOOK
from fedbench.cli.hooks import Hook, described
from fedbench.config import yamlfile
from fedbench.config.cards import load_card
from fedbench.config.model import RunConfig
from fedbench.hookspecs import DiscoveryHooks, RunHooks
from fedbench.plugins.facts import PluginFacts, facts
from fedbench.plugins.registry import Entry, Registry
from fedbench.study import reproductions

DOCS = Path(__file__).parents[1]
NOTE = "This page is generated from the code.\n"

GROUPS: dict[str, tuple[str, str, Callable[[list[str]], bool]]] = {
    "partitions": (
        "Partitions",
        "A partition divides the training examples among the clients; a run has exactly one.",
        lambda hooks: "partition" in hooks,
    ),
    "modifiers": (
        "Changes to the data",
        "These plugins change the data, for every client or for some. They combine with any "
        "partition and, in YAML order, with each other.",
        lambda hooks: bool({"prepare_data", "client_data"} & set(hooks)),
    ),
    "transforms": (
        "Transforms",
        "Transforms change batches on their way into the model, in YAML order.",
        lambda hooks: "transform" in hooks,
    ),
    "plugins": (
        "Run plugins",
        "Run plugins are the parts of methods: training, client sampling, loss terms, "
        "aggregation, observers.",
        lambda hooks: True,
    ),
}
"""Page -> title, first sentence, a test of a plugin's hooks; the first page that fits has it."""

KINDS = {
    "dataset": (
        "datasets",
        "Data sets",
        "A data set has training and test examples, labelled and divided into domains. Choose one "
        "with `--data NAME`, or in YAML with `data: {name: NAME, ...}`.",
    ),
    "model": (
        "models",
        "Models",
        "A model is a feature extractor and a linear classifier. Choose one with `--model NAME`, "
        "or in YAML with `model: {name: NAME, ...}`.",
    ),
    "metric": (
        "metrics",
        "Metrics",
        "A metric scores predictions on test data. Choose metrics in YAML: "
        "`metrics: {NAME: {...}}`.",
    ),
    "executor": (
        "executors",
        "Executors",
        "An executor runs the clients, in this process or elsewhere; all executors produce the "
        "same bits. Choose one with `--executor NAME`.",
    ),
}


def pages(registry: Registry) -> dict[str, str]:
    """Return every reference page: file name -> Markdown."""
    found = {
        "hooks.md": hooks_page(),
        "methods.md": methods_page(registry),
        **{f"{name}.md": plugins_page(registry, name) for name in GROUPS},
        **{f"{name}.md": kind_page(registry, kind) for kind, (name, _, _) in KINDS.items()},
        "cards.md": cards_page(registry),
        "reproductions.md": reproductions_page(registry),
        "config.md": config_page(),
        "commands.md": commands_page(),
        "rules.md": rules_page(),
        "digits-sources.md": (DOCS.parent / "datasets" / "README.md").read_text(encoding="utf-8"),
    }
    names = "\n".join(name.removesuffix(".md") for name in found)
    head = "# Reference\n\nEverything that comes with fedbench, generated from the code."
    found["index.md"] = f"{head}\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)]) + "\n"


def code(text: str, lexer: str = "text") -> str:
    """Return a fenced block."""
    return f"```{lexer}\n{text.strip(chr(10))}\n```\n"


def prose(text: str) -> str:
    """Turn a docstring into Markdown; indented text after ``::`` becomes a block."""
    done = []
    for part in re.split(r"\n(?=\S)", text):
        head, _, rest = part.partition("::\n")
        done.append(f"{head}:\n\n{code(textwrap.dedent(rest))}" if rest else part)
    return "\n".join(done).strip() + "\n"


def doc(thing: object) -> str:
    """Return the docstring of a class as Markdown."""
    return prose(inspect.getdoc(thing) or "")


def option_table(cls: type, prefix: str = "") -> str:
    """Return the table of a class's options."""
    nested = {n for n, hint in get_type_hints(cls).items() if is_dataclass(hint)}
    found = options.describe(cls)
    searched = any(o.search for o in found)
    rows = [
        (
            f"`{prefix}{o.name}`",
            f"`{o.type}`",
            "see below" if o.name in nested else f"`{o.default}`",
            o.bounds,
            *((o.search,) if searched else ()),
            o.about,
        )
        for o in found
    ]
    search = ("search",) if searched else ()
    head = ("option", "type", "default", "bounds", *search, "meaning")
    return table(head, rows) if rows else "It has no options.\n"


def group_of(entry: Entry) -> str:
    """Return the name of the page that a run plugin is on."""
    return next(name for name, (_, _, fits) in GROUPS.items() if fits(entry.own_hooks))


def linked(names: Iterable[str], kind: str) -> str:
    """Return names as links to their descriptions."""
    return ", ".join(f"[`{n}`](#{kind}-{n})" for n in names)


def methods_page(registry: Registry) -> str:
    """Return the page of all methods."""
    families = registry.families()
    found = [e for methods in families.values() for e in methods]
    rows = [
        (family, f"[`{e.name}`](#method-{e.name})", e.about, e.value.source)
        for family, methods in families.items()
        for e in methods
    ]
    text = "# Methods\n\nA method is a federated learning algorithm, made of run plugins. "
    text += f"{NOTE}\n{table(('family', 'method', 'idea', 'source'), rows)}\n"
    for e in found:
        given = [
            (
                linked([plugin], "plugin"),
                ", ".join(f"`{k}: {v}`" for k, v in values.items()) or "defaults",
                ", ".join(
                    f"`{plugin}.{o.name}`"
                    for o in options.describe(registry.get("plugin", plugin).value)
                ),
            )
            for plugin, values in e.value.plugins.items()
        ]
        text += f"(method-{e.name})=\n## `{e.name}`\n\n{e.about[0].upper()}{e.about[1:]}.\n\n"
        text += f"Source: {e.value.source}.\n\n"
        text += table(("plugin", "set by the method", "options for `--set`"), given) + "\n"
        if e.value.without:
            text += (
                f"Leaves out these plugins of the card: {linked(e.value.without, 'plugin')}.\n\n"
            )
        text += code(f"fedbench run {e.name} --data digits", "sh") + "\n"
    return text


def plugins_page(registry: Registry, group: str) -> str:
    """Return the page of one group of run plugins."""
    title, about, _ = GROUPS[group]
    text = f"# {title}\n\n{about} {NOTE}\n"
    for e in registry.all("plugin"):
        if group_of(e) == group:
            text += f"(plugin-{e.name})=\n## `{e.name}`\n\n{doc(e.value)}\n"
            stated = facts(PluginFacts, e.value)
            if stated.requires:
                text += f"Must be listed after: {linked(stated.requires, 'plugin')}.\n\n"
            if stated.roles:
                text += f"Roles: {', '.join(stated.roles)}.\n\n"
            if stated.conflicts:
                rows = [(what, why) for what, why in stated.conflicts.items()]
                text += table(("not in one run with", "why"), rows) + "\n"
            text += f"Hooks: {linked(e.hooks, 'hook')}.\n\n{option_table(e.value, e.name + '.')}\n"
    return text


def kind_page(registry: Registry, kind: str) -> str:
    """Return the page of all data sets, models, metrics or executors."""
    _, title, about = KINDS[kind]
    text = f"# {title}\n\n{about} {NOTE}\n"
    for e in registry.all(kind):
        text += f"({kind}-{e.name})=\n## `{e.name}`\n\n{doc(e.value)}\n"
        facts = [(k, getattr(e.value, k, None)) for k in ("size", "licence", "source")]
        text += "".join(f"- {k}: {v}\n" for k, v in facts if isinstance(v, str) and v)
        if card := getattr(e.value, "card", None):
            text += f"- default card: {linked([card], 'card')}\n"
        text += (
            f"\n{option_table(e.value, {'metric': f'metrics.{e.name}'}.get(kind, kind) + '.')}\n"
        )
    return text.replace("`dataset.", "`data.")


def cards_page(registry: Registry) -> str:
    """Return the page of all protocol cards."""
    text = "# Cards\n\nCards are named, versioned protocols: data, partition, model and training. "
    text += f"Choose one with `--card NAME`. {NOTE}\n"
    for name in registry.names("card"):
        card = load_card(registry, name)
        text += f"(card-{name})=\n## `{name}`\n\n{card.title}. Version {card.version}, "
        text += f"hash `{card.hash}`.\n\n{code(yamlfile.dump(card.config), 'yaml')}\n"
        reasons = [(f"`{key}`", why) for key, why in card.reasons.items()]
        text += table(("value", "why"), reasons) + "\n"
        if card.published:
            rows = [(p.method, p.column, f"{100 * p.value:.2f}", p.source) for p in card.published]
            text += table(("published method", "column", "%", "source"), rows) + "\n"
    return text


def reproductions_page(registry: Registry) -> str:
    """Return the page of all reproductions."""
    text = "# Reproductions\n\nA reproduction is a published result with the runs that measure it "
    text += "and the rule that judges them. `fedbench reproduce NAME` carries it out; "
    text += f"[](../results/reproductions.md) has results. {NOTE}\n"
    for name in registry.names("reproduction"):
        found, parts = reproductions.load(registry, name)
        text += f"(reproduction-{name})=\n## `{name}`\n\n{found.title}. "
        text += f"Version {found.version}.\n\n"
        read = "from memory, not read for this file" if found.from_memory else "read there"
        text += f"Published values: {found.source}; {read}.\n\n"
        rows = [
            (f"`{part.name}`", part.cell.title, f"`{method}`", published(part.cell, method))
            for part in parts
            for method in part.grid.methods
        ]
        text += table(("cell", "setting", "method", "published"), rows)
        rule = (
            f"A value counts as reproduced {found.rule}"
            if found.rule.given
            else "The order is judged"
        )
        text += f"\n{rule}.\n\n"
        text += "".join(f"- {what}\n" for what in found.differs) + "\n"
    return text


def published(cell: reproductions.Cell, method: str) -> str:
    """Return what was published for a method: its value, or its place in the order."""
    if method in cell.published:
        return f"{cell.published[method]:g}"
    return f"place {cell.order.index(method) + 1}" if method in cell.order else "-"


LAYERS = """
A file may leave out what a method or a protocol states. `recipe: NAME` and `card: NAME` stand for
their values, and a later layer wins over an earlier one: card, recipe, file, flags.

- Options that a layer does not set keep their values.
- Some hooks have exactly one implementation in a run, such as `partition`, `select_clients` and
  `aggregate`. A plugin that a layer names for such a hook replaces the one of an earlier layer and
  takes its place in the order. Two of them in one layer are an error.
- The whole plugin is replaced. If it also implements a hook that its successor does not, the run
  would lose a part that nobody mentioned. This is an error, unless the layer says `without` it.
- `without: [crop, flip]` leaves out plugins of earlier layers, as `--without crop` does.

`fedbench config METHOD` prints a complete file, and with `--explain` the layer that set each value.
`fedbench config --schema` prints the schema that editors use.
"""


def config_page() -> str:
    """Return the page of a config file's keys."""
    text = "# Config files\n\nA config file is a YAML file that determines a run completely. "
    text += f"{NOTE}\n{doc(RunConfig)}\n"
    text += f"{LAYERS}\n"
    text += f"{option_table(RunConfig).replace('| option |', '| key |')}\n"
    hints = get_type_hints(RunConfig)
    for f in fields(RunConfig):
        if is_dataclass(inner := hints[f.name]):
            text += f"## `{f.name}`\n\n{doc(inner)}\n{option_table(inner, f.name + '.')}\n"
    return text


def commands(group: click.Group = main, prefix: str = "fedbench") -> Iterator[tuple[str, Any]]:
    """Yield every command as it is typed, including groups, which may be commands themselves."""
    for name, command in sorted(group.commands.items()):
        typed = f"{prefix} {name}"
        yield typed, command
        if isinstance(command, click.Group):
            yield from commands(command, typed)


def commands_page() -> str:
    """Return the page of all commands."""
    text = f"# Commands\n\n{NOTE}\n{help_text(main.help)}\n"
    for typed, command in commands():
        # Use the CLI's settings: a command keeps the help option of its first context.
        ctx = click.Context(command, info_name=typed, **main.context_settings)
        usage = " ".join([typed, *command.collect_usage_pieces(ctx)])
        anchor = typed.replace(" ", "-")
        text += f"({anchor})=\n## `{typed}`\n\n{code(usage)}\n{help_text(command.help)}\n"
        rows = []
        for p in command.get_params(ctx):
            if isinstance(p, click.Option):
                value = f" {p.make_metavar(ctx)}" if not p.is_flag and not p.count else ""
                rows.append((f"`{', '.join(p.opts)}{value}`", p.help or ""))
        text += table(("option", "what it does"), rows) + "\n"
    return text


def help_text(text: str | None) -> str:
    r"""Turn a command's help into Markdown; text after ``\b`` becomes a block."""
    done = []
    for part in inspect.cleandoc(text or "").split("\n\n"):
        done.append(code(part[2:], "sh") if part.startswith("\b\n") else f"{part}\n")
    return "\n".join(done)


def hooks_page() -> str:
    """Return the page of all hooks."""
    text = f"# Hooks\n\n{NOTE}\n{prose(inspect.getdoc(hookspecs) or '')}\n"
    text += "Every example below is complete, and a test runs it. `fedbench hooks NAME` prints the "
    text += "same in the terminal.\n\n"
    for group, title in ((RunHooks, "Hooks of a run"), (DiscoveryHooks, "Hooks of a package")):
        text += f"## {title}\n\n{''.join(map(hook_section, described(group)))}"
    return text


def hook_section(hook: Hook) -> str:
    """Return the section about one hook."""
    text = f"(hook-{hook.name})=\n### `{hook.name}`\n\n{hook.about}\n\n"
    text += f"{code(hook.declaration, 'python')}\n"
    text += f"- **When**: {hook.when}\n- **Returns**: {hook.returns}\n"
    text += f"- **How many**: {KINDS_OF_HOOK[hook.kind]}\n\n"
    return f"{text}{code(hook.example.read_text(encoding='utf-8'), 'python')}\n"


def rules_page() -> str:
    """Return the page of the conformance kit's rules."""
    rows = [(f"`{name}`", kinds, statement) for name, kinds, statement in testing.table()]
    head = "# Conformance rules\n\nThe rules that `fedbench.testing` checks for a plugin. "
    return f"{head}{NOTE}\n{table(('rule', 'kinds', 'statement'), rows)}"
