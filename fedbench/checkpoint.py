"""Checkpoints: all that a run needs to go on, in safetensors and JSON, never pickle.

``checkpoint/state-R.safetensors`` holds the server's state after round R and the client states
that are in memory; ``checkpoint/checkpoint.json`` names it with its SHA-256 and is replaced last,
so there is a whole checkpoint at every moment. Random streams need nothing: rounds key them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from .errors import ConfigError
from .store import ClientStates, to_json, versions, write_atomic
from .types import Payload, ServerState, flatten, unflatten

FOLDER, POINTER = "checkpoint", "checkpoint.json"
FORMAT = 1


@dataclass(frozen=True)
class Restored:
    """What a checkpoint gives back: the state, the clients' states, and who owns which entry."""

    state: ServerState
    owners: dict[str, str]
    clients: ClientStates


def write(
    run: Path,
    config_hash: str,
    state: ServerState,
    owners: Mapping[str, str],
    clients: ClientStates,
) -> None:
    """Write a checkpoint of the run directory ``run`` and then remove the one before it."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    tensors = {
        **{f"weights/{name}": value for name, value in state.weights.items()},
        **{f"server/{name}": value for name, value in flatten(state.entries).items()},
    }
    in_memory, on_disk = clients.snapshot()
    for client, kept in in_memory.items():
        tensors |= {f"client/{client}/{name}": value for name, value in flatten(kept).items()}
    data = save({name: value.contiguous() for name, value in tensors.items()})
    name = f"state-{state.round}.safetensors"
    write_atomic(folder / name, data)
    pointer = {
        "format": FORMAT,
        "round": state.round,
        "config_hash": config_hash,
        "versions": versions(),
        "owners": dict(owners),
        "file": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "clients": {str(client): file for client, file in on_disk.items()},
    }
    write_atomic(folder / POINTER, to_json(pointer))
    clients.forget_old()
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def exists(run: Path) -> bool:
    """Whether the run directory has a checkpoint."""
    return (run / FOLDER / POINTER).is_file()


def read(run: Path, config_hash: str) -> Restored:
    """Read the checkpoint of a run directory.

    Raises:
        ConfigError: when it is damaged, belongs to another config, or was made by versions whose
            bits may differ from those installed.
    """
    path = run / FOLDER / POINTER
    try:
        pointer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if pointer["format"] != FORMAT:
            raise ConfigError(f"{path}: format {pointer['format']}; this version reads {FORMAT}")
        if pointer["config_hash"] != config_hash:
            raise ConfigError(f"{path}: made by another config than {run / 'config.yaml'}")
        made, here = pointer["versions"], versions()
        for name in ("torch", "fedbench-toolkit"):
            if made[name] != here[name]:
                raise ConfigError(
                    f"{path}: made with {name} {made[name]}, installed is {here[name]}; results "
                    "could differ, so install that version or start anew"
                )
        file = run / FOLDER / Path(pointer["file"]).name
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != pointer["sha256"]:
            raise ConfigError(f"{file}: damaged: its SHA-256 is not the recorded one")
        tensors = load(data)
        clients = ClientStates(run / "clients")
        parts: dict[str, dict[str, Any]] = {"weights": {}, "server": {}}
        kept: dict[int, dict[str, Any]] = {}
        for full, tensor in tensors.items():
            part, name = full.split("/", 1)
            if part == "client":
                client, name = name.split("/", 1)
                kept.setdefault(int(client), {})[name] = tensor
            else:
                parts[part][name] = tensor
        clients.restore(
            {client: unflatten(flat) for client, flat in kept.items()},
            {int(client): Path(file).name for client, file in pointer["clients"].items()},
        )
        entries = Payload(unflatten(parts["server"]), "the server's state")
        state = ServerState(int(pointer["round"]), parts["weights"], entries)
        return Restored(state, dict(pointer["owners"]), clients)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename}: no such file; the run can't go on from here"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ConfigError(f"{path}: damaged: {type(error).__name__}: {error}") from error
