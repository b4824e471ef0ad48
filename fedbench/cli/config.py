"""``fedbench config``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ..text import echo
from .base import Command
from .flags import config_flags, installed, resolve_config

if TYPE_CHECKING:
    from ..config.merging import Merged


@click.command(cls=Command)
@click.argument("target", metavar="[METHOD|FILE.yaml]", required=False)
@config_flags
@click.option("--explain", is_flag=True, help="Say for each value which layer set it.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of config files instead.")
def config(target: str | None, explain: bool, schema: bool, **given: Any) -> None:
    """Print the complete YAML config of a METHOD, to start from.

    \b
    fedbench config fedhpro > mine.yaml
    fedbench config fedhpro --with iid --explain
    fedbench config --schema > fedbench.schema.json

    It holds every value, with all defaults filled in. With --explain, a comment after each value
    names the layer that set it: default, card, recipe, FILE:LINE or a flag. Plugins that a later
    layer replaced or left out are listed at the end.
    """
    if schema:
        from ..config.schema import json_schema

        echo(json.dumps(json_schema(installed()), indent=2), lines=True)
        return
    if target is None and given["file"] is None:
        raise click.UsageError("name a method, for example: fedbench config fedavg")
    from ..config.explain import explained

    seen: list[Merged] = []
    _, found = resolve_config(target, seen=seen.append, **given)
    text = explained(found, seen[0]) if explain else found.to_yaml()
    echo(text.rstrip("\n"), lines=True)
