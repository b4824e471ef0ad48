"""Configs: what a run is, made from layers of YAML, cards, recipes and flags."""
