"""Coverage-guided fuzzing of everything that is read from outside; run by hand.

    pip install atheris
    python tests/fuzz/fuzz_readers.py yaml CORPUS_FOLDER -max_total_time=300

The first word is the reader: ``yaml`` (parsing, and resolving a config), ``checkpoint`` (pointer
and tensors), ``rounds``, ``result`` or ``client`` (a client's state file); the rest goes to
libFuzzer. A reader may refuse its input only with a `ConfigError` of one line: any other exception
stops the fuzzer, which then writes the input to ``crash-*``. Inputs found this way are in
``tests/corpus``, which the tests run.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy  # noqa: F401 - what is imported here is not instrumented
import pydantic  # noqa: F401
import torch
from safetensors.torch import save

with atheris.instrument_imports(include=["fedbench", "yaml", "json.decoder"]):
    from fedbench.config import resolve as config
    from fedbench.config import yamlfile
    from fedbench.errors import ConfigError
    from fedbench.plugins.discovery import discover
    from fedbench.store import checkpoint, reading
    from fedbench.store.client_states import ClientStates
    from fedbench.store.environment import versions

FOLDER = Path(tempfile.mkdtemp(prefix="fedbench-fuzz-"))
REGISTRY = discover()
CONFIG = config.resolve(REGISTRY, "fedavg")
VERSIONS = versions()
TENSORS = save({"weights/w": torch.zeros(2)})


def one_line(call: Callable[[], object]) -> None:
    """Run a reader; it may refuse its input in one line."""
    try:
        call()
    except ConfigError as error:
        if "\n" in str(error).strip():
            raise AssertionError(f"several lines: {error}") from error


def fuzz_yaml(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")

    def call() -> None:
        found = config.resolve(REGISTRY, file=yamlfile.parse(text, "x.yaml"))
        again = yamlfile.parse(found.to_yaml(), "y.yaml")
        assert config.resolve(REGISTRY, file=again).hash == found.hash

    one_line(call)


def fuzz_checkpoint(data: bytes) -> None:
    """The first byte says what the rest is: a file of tensors, or keys of the pointer."""
    folder = FOLDER / "checkpoint"
    folder.mkdir(exist_ok=True)
    tensors = data[1:] if data[:1] < b"\x80" else TENSORS
    (folder / "state-1.safetensors").write_bytes(tensors)
    pointer = {
        "format": 1,
        "round": 1,
        "config_hash": CONFIG.hash,
        "versions": VERSIONS,
        "owners": {},
        "file": "state-1.safetensors",
        "sha256": hashlib.sha256(tensors).hexdigest(),
        "clients": {},
    }
    if data[:1] >= b"\x80":
        try:
            pointer.update(json.loads(data[1:]))
        except (ValueError, TypeError, RecursionError):
            return
    (folder / "checkpoint.json").write_text(json.dumps(pointer))

    def call() -> None:
        found = checkpoint.read(FOLDER, CONFIG)
        checkpoint.check_weights(found.state, {"w": torch.zeros(2)})

    one_line(call)


def fuzz_rounds(data: bytes) -> None:
    path = FOLDER / "rounds.jsonl"
    path.write_bytes(data)
    one_line(lambda: reading.rounds(path))


def fuzz_result(data: bytes) -> None:
    path = FOLDER / "result.json"
    path.write_bytes(data)
    one_line(lambda: reading.result(path))


def fuzz_client(data: bytes) -> None:
    folder = FOLDER / "clients"
    folder.mkdir(exist_ok=True)
    (folder / "0.1.safetensors").write_bytes(data)
    states = ClientStates(folder)
    states.restore({}, {0: "0.1.safetensors"})
    one_line(lambda: states[0])


if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, globals()[f"fuzz_{name}"])
    atheris.Fuzz()
