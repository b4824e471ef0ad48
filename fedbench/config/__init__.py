"""Configs: what a run consists of, put together from YAML files, cards, recipes and flags."""

from .construct import build
from .resolve import load_config

__all__ = ["build", "load_config"]
