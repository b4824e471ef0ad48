"""Every key of a config counts towards its hash, or states why it does not."""

from __future__ import annotations

from dataclasses import fields, replace

from fedbench.config.changes import NO_CHANGE
from fedbench.config.layers import INSTRUCTIONS
from fedbench.config.model import KEYS, NOT_HASHED, Accuracy, Clients, Failures, RunConfig
from fedbench.config.resolve import resolve
from fedbench.plugins.rules import RESERVED
from fedbench.study.records import SETTING_KEYS


def test_every_key_counts_towards_the_hash_or_the_reason_is_stated(registry):
    """A new key cannot be missing from the file or the hash without anybody noticing."""
    config = resolve(registry, "fedavg", card="digits")
    assert list(config.to_dict()) == list(KEYS) == [f.name for f in fields(RunConfig)]
    assert set(NOT_HASHED) <= set(KEYS)
    assert all(NOT_HASHED.values())
    other = {
        "method": "renamed",
        "data": {"name": "other"},
        "model": {"name": "other"},
        "seed": 1,
        "rounds": 1,
        "device": "cuda",
        "precision": "bf16",
        "executor": {"name": "inline"},
        "failures": Failures("skip"),
        "clients": Clients(test=0.2),
        "evaluate_every": 2,
        "accuracy": Accuracy(rule="last"),
        "stop_at": 0.9,
        "stop_time": 60.0,
        "metrics": {"accuracy": {}},
        "plugins": {},
        "origin": {},
    }
    assert other.keys() == set(KEYS), "give the new key another value here"
    for key, value in other.items():
        changed = replace(config, **{key: value})
        assert (changed.hash == config.hash) == (key in NOT_HASHED), key


def test_a_plugin_cannot_have_the_name_of_a_key():
    assert {*KEYS, *INSTRUCTIONS} <= RESERVED


def test_every_key_is_a_change_a_setting_or_neither_on_purpose():
    assert set(NO_CHANGE) <= set(KEYS)
    assert set(SETTING_KEYS) <= set(KEYS) - set(NO_CHANGE)
