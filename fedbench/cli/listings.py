"""Commands that list and show what is installed: plugins, cards, partitions, data sets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from ..errors import did_you_mean
from ..text import echo
from .base import Command, Listing
from .flags import config_flags, data_root_flag, installed, resolve_config
from .kinds import PATH, UserPath


@click.group(cls=Listing)
@click.option(
    "--sources", is_flag=True,
    help="Show which code of which package would be loaded, and from where, without loading it.",
)  # fmt: skip
@click.pass_context
def plugins(ctx: click.Context, sources: bool) -> None:
    """List what is installed, or show one plugin.

    \b
    fedbench plugins                            every plugin and its hooks
    fedbench plugins --sources                  where its code would come from
    fedbench plugins show hpcl                  its options, defaults, bounds

    The list names the package of each entry and the hooks that each plugin implements. Set
    FEDBENCH_PLUGINS=a,b to load only these packages besides the bundled ones.
    """
    if ctx.invoked_subcommand is not None:
        return
    if sources:
        _print_sources()
        return
    from . import printing as terminal

    terminal.print_plugins(installed())


def _print_sources() -> None:
    from ..plugins.discovery import sources
    from ..plugins.registry import LIMIT

    for source in sources():
        what = source.problem or ("loads" if source.file else "not found")
        what = what if source.loads else f"left out by {LIMIT}"
        package = f"{source.package} {source.version}".strip()
        echo(f"{package}, {source.value}: {what}")
        if source.file:  # on a line of its own, whole, to be opened
            echo(f"    {source.file}")


@plugins.command("show")
@click.argument("name")
def plugins_show(name: str) -> None:
    """Print the description, hooks and options of NAME.

    \b
    fedbench plugins show hpcl

    Options are shown with their types, defaults and bounds.
    """
    from . import printing as terminal

    terminal.print_plugin(installed(), name)


@click.command(cls=Command)
@click.argument("name", required=False)
def hooks(name: str | None) -> None:
    """List the hooks that a plugin can implement, or print one.

    \b
    fedbench hooks
    fedbench hooks client_update                documentation and an example
    """
    from . import hooks as described

    if name:
        described.print_hook(name)
    else:
        described.print_hooks()


@click.command(cls=Command)
@click.argument("name", required=False)
def cards(name: str | None) -> None:
    """List the protocol cards, or print one.

    \b
    fedbench cards
    fedbench cards digits

    A card is a protocol: data, model, partition, training and accuracy rule, with the reason for
    each value, and results that were published under it.
    """
    from . import printing as terminal

    if name:
        terminal.print_card(installed(), name)
    else:
        terminal.print_cards(installed())


@click.command(cls=Command)
@click.argument("target", metavar="[METHOD|FILE.yaml]", required=False)
@config_flags
@click.option("--png", type=PATH, metavar="FILE", help="Also draw a heat map into FILE.")
@data_root_flag
def partition(target: str | None, png: Path | None, data_root: Path | None, **given: Any) -> None:
    """Show which data each client would get, without training.

    \b
    fedbench partition --data digits --png partition.png
    fedbench partition --card cifar10-nid1-0.5 --set dirichlet.alpha=0.1 --seed 3
    """
    from ..runtime import Runtime, partition_table
    from ..store.files import default_data_root
    from . import printing as terminal

    registry, config = resolve_config(target, any_method=True, **given)
    runtime = Runtime(config, registry, data_root or default_data_root())
    terminal.show_partition(config, partition_table(runtime), png)


class DataSets(Listing):
    """Lists data sets, or prints one: a word that is not a command names a data set."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names, or one that prints this data set."""
        name, *more = args
        if name in self.commands:
            return super().resolve_command(ctx, args)
        if more and not more[0].startswith("-"):
            ctx.fail(f"no command {name!r}{did_you_mean(name, self.commands)}")
        about = "Print the description of the data set and its options."
        return name, Command(name, callback=partial(_print_dataset, ctx, name), help=about), more


def _print_dataset(ctx: click.Context, name: str) -> None:
    from .datasets import print_dataset

    print_dataset(installed(), name, ctx.obj)


@click.group(cls=DataSets, subcommand_metavar="[NAME | COMMAND [ARGS]...]")
@data_root_flag
@click.pass_context
def data(ctx: click.Context, data_root: Path | None) -> None:
    """List the data sets, or describe one without loading it.

    \b
    fedbench data
    fedbench data digits                        card, licence, classes, options
    fedbench data show digits --out sheets      counts, and a PNG per domain
    fedbench data fetch mnist                   download its files
    """
    from ..store.files import default_data_root

    ctx.obj = data_root or default_data_root()
    if ctx.invoked_subcommand is None:
        from .datasets import print_datasets

        print_datasets(installed(), ctx.obj)


@data.command("show")
@click.argument("name")
@click.option(
    "--out", type=UserPath(file_okay=False), default=Path("."), metavar="DIR",
    help="Folder to write the contact sheets into. Default: the current one.",
)  # fmt: skip
@click.pass_context
def data_show(ctx: click.Context, name: str, out: Path) -> None:
    """Count the examples of data set NAME, and draw some of them.

    \b
    fedbench data show digits --out sheets

    A PNG contact sheet is written for each domain.
    """
    from . import printing as terminal

    terminal.show_dataset(installed(), name, ctx.obj, out)


@data.command("fetch")
@click.argument("name")
@click.pass_context
def data_fetch(ctx: click.Context, name: str) -> None:
    """Download the files of data set NAME and check their checksums.

    \b
    fedbench data fetch mnist
    fedbench data --data-root /big/disk fetch sun397

    An interrupted download resumes where it stopped. If the files cannot be downloaded directly,
    because of their licence for example, the command says where to get them and where to put them.
    """
    from . import fetch

    echo(fetch.fetch(installed(), name, ctx.obj))
