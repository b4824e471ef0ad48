"""A package with a protocol card, a YAML file next to this module."""

from collections.abc import Mapping
from pathlib import Path

from fedbench import hookimpl

fedbench_api = 1


@hookimpl
def register_cards() -> Mapping[str, Path]:
    return {"digits-skewed": Path(__file__).with_name("digits-skewed.yaml")}
