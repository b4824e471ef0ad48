"""``fedbench config``."""

from __future__ import annotations

import json
from typing import Any

import click

from ..text import echo
from .base import Command
from .flags import config_flags, installed, resolve_config


@click.command(cls=Command)
@click.argument("target", metavar="[METHOD|FILE.yaml]", required=False)
@config_flags
@click.option("--schema", is_flag=True, help="Print the JSON schema of config files instead.")
def config(target: str | None, schema: bool, **given: Any) -> None:
    """Print the complete YAML config of a METHOD, to start from.

    \b
    fedbench config fedhpro > mine.yaml
    fedbench config --schema > fedbench.schema.json

    It holds every value, with all defaults filled in.
    """
    if schema:
        from ..config.schema import json_schema

        echo(json.dumps(json_schema(installed()), indent=2), lines=True)
        return
    if target is None and given["file"] is None:
        raise click.UsageError("name a method, for example: fedbench config fedavg")
    echo(resolve_config(target, **given)[1].to_yaml().rstrip("\n"), lines=True)
