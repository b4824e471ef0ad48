"""A package with a reproduction, a YAML file next to this module."""

from collections.abc import Mapping
from pathlib import Path

from fedbench import hookimpl

fedbench_api = 1


@hookimpl
def register_reproductions() -> Mapping[str, Path]:
    return {"digits-table-1": Path(__file__).with_name("digits-table-1.yaml")}
