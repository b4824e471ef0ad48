"""Checkpoints: everything that a run needs to continue, in safetensors and JSON, never pickle.

``checkpoint/state-R.safetensors`` holds the server's state after round R, the client states that
are in memory, and what clients that are at work in virtual time have received;
``checkpoint/checkpoint.json`` names that file and its SHA-256, and these clients. It is replaced
last, so there is a complete checkpoint at every moment. Random streams need no state, because they
are keyed by the round.

A run that keeps its checkpoints also stores each of them in ``checkpoints/round-000010/``: the same
two files and, in ``clients/``, the client states that were in files. `fedbench.engine.verify` can
start from any of them; resuming needs only the last one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter
from safetensors import SafetensorError
from torch import Tensor

from ..config.model import RunConfig
from ..errors import ConfigError
from ..turns import AtWork, Flight, Sent
from ..types import Payload, ServerState, Value, Weights, flatten, unflatten
from . import reading
from .client_states import ClientStates
from .directory import CLIENTS, CONFIG, RunDirectory
from .environment import versions
from .files import refuse_link, to_json, write_atomic
from .tensor_file import from_bytes, to_bytes

POINTER = "checkpoint.json"
FORMAT = 1


@dataclass(frozen=True)
class _AtWork:
    """A client at work: what it received is among the tensors, its answer is computed again."""

    client: Annotated[int, Field(ge=0, strict=True)]
    round: Annotated[int, Field(ge=1, strict=True)]
    start: float
    end: float


@dataclass(frozen=True)
class _Pointer:
    """What ``checkpoint.json`` holds."""

    format: Annotated[int, Field(strict=True)]
    round: Annotated[int, Field(ge=1, strict=True)]
    config_hash: str
    versions: dict[str, str]
    owners: dict[str, str]
    file: Annotated[str, Field(pattern=r"^state-[0-9]+\.safetensors$")]
    sha256: str
    clients: dict[int, str]
    now: float = 0.0
    at_work: tuple[_AtWork, ...] = ()


_POINTER: TypeAdapter[_Pointer] = TypeAdapter(_Pointer)


@dataclass(frozen=True)
class Restored:
    """What a checkpoint restores: the server's state, its entries' owners, the clients' states."""

    state: ServerState
    owners: dict[str, str]
    clients: ClientStates


def write(
    run: Path,
    config_hash: str,
    state: ServerState,
    owners: Mapping[str, str],
    clients: ClientStates,
    keep: bool = False,
) -> None:
    """Write a checkpoint into the run directory ``run``, then remove the previous one.

    With ``keep`` it also stays in ``checkpoints/`` permanently.
    """
    folder = RunDirectory(run).checkpoint_folder
    folder.mkdir(exist_ok=True)
    tensors = {
        **{f"weights/{name}": value for name, value in state.weights.items()},
        **{f"server/{name}": value for name, value in flatten(state.entries).items()},
    }
    for number, sent in state.flight.sent.items():
        tensors |= {f"sent/{number}/{n}": tensor for n, tensor in flatten(sent.travels).items()}
        decoded = {k: v for k, v in sent.plain.items() if v is not sent.travels[k]}
        tensors |= {f"plain/{number}/{n}": tensor for n, tensor in flatten(decoded).items()}
    in_memory, on_disk = clients.snapshot()
    for client, kept in in_memory.items():
        tensors |= {f"client/{client}/{name}": value for name, value in flatten(kept).items()}
    data = to_bytes(tensors)
    name = f"state-{state.round}.safetensors"
    write_atomic(folder / name, data)
    pointer = _Pointer(
        format=FORMAT,
        round=state.round,
        config_hash=config_hash,
        versions=versions(),
        owners=dict(owners),
        file=name,
        sha256=hashlib.sha256(data).hexdigest(),
        clients=dict(on_disk),
        now=state.flight.now,
        at_work=tuple(_AtWork(t.client, t.round, t.start, t.end) for t in state.flight.turns),
    )
    write_atomic(folder / POINTER, to_json(pointer))
    if keep:
        _keep(RunDirectory(run), pointer)
    clients.forget_old()
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def _keep(run: RunDirectory, pointer: _Pointer) -> None:
    """Keep the checkpoint that was just written; it is complete once its pointer is there."""
    folder = run.kept_folder / f"round-{pointer.round:06d}"
    for path in (folder, folder / CLIENTS):
        refuse_link(path)
        path.mkdir(parents=True, exist_ok=True)
    _link(run.checkpoint_folder / pointer.file, folder / pointer.file)
    for name in pointer.clients.values():
        _link(run.clients_folder / name, folder / CLIENTS / name)
    write_atomic(folder / POINTER, to_json(pointer))


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it if the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        # Both names can share their bytes, because files of a checkpoint are never modified.
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _folders(run: Path) -> dict[int, Path]:
    """Return the folders in ``checkpoints/`` by round, complete or not."""
    folders = RunDirectory(run).kept_folder.glob("round-*")
    found = ((re.fullmatch(r"round-(\d{6,})", p.name), p) for p in folders)
    return {int(name[1]): path for name, path in found if name}


def kept(run: Path) -> dict[int, Path]:
    """Return the folders of a run's kept checkpoints by round; incomplete ones are omitted."""
    return {n: p for n, p in sorted(_folders(run).items()) if (p / POINTER).is_file()}


def cut(run: Path, upto: int) -> None:
    """Remove kept checkpoints of rounds after ``upto``, and incomplete ones that a crash left.

    Raises:
        ConfigError: when one cannot be removed.
    """
    complete = kept(run)
    for number, folder in _folders(run).items():
        if number > upto or number not in complete:
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise ConfigError(
                    f"{folder} cannot be removed: {error.strerror or error}"
                ) from error


def exists(run: Path) -> bool:
    """Whether the run directory has a checkpoint."""
    return (RunDirectory(run).checkpoint_folder / POINTER).is_file()


def read(run: Path, config: RunConfig) -> Restored:
    """Read the checkpoint of a run directory, to continue that run.

    Raises:
        ConfigError: when it is damaged, belongs to another config, or was made with other versions,
            whose results may differ.
    """
    directory = RunDirectory(run)
    path = directory.checkpoint_folder / POINTER
    pointer = _pointer(path, config)
    here = versions()
    for name in ("torch", "fedbench-toolkit"):
        made = pointer.versions.get(name, "an unknown version")
        if made != here[name]:
            raise ConfigError(
                f"{path}: made with {name} {made}, but {here[name]} is installed; results "
                "could differ, so install that version or start a new run"
            )
    clients = directory.clients_folder
    return _restored(directory.checkpoint_folder, pointer, clients, ClientStates(clients))


def read_kept(folder: Path, round: int, config: RunConfig) -> Restored:
    """Read the kept checkpoint in ``folder`` without changing the folder.

    Its client states are copied to memory or to temporary files. Other versions may have made it.

    Raises:
        ConfigError: when it is damaged, is not of that round, or belongs to another config.
    """
    pointer = _pointer(folder / POINTER, config)
    if pointer.round != round:
        raise ConfigError(f"{folder / POINTER}: damaged: round {pointer.round}, not {round}")
    return _restored(folder, pointer, folder / CLIENTS, ClientStates(), copy=True)


def _pointer(path: Path, config: RunConfig) -> _Pointer:
    """Read a ``checkpoint.json``, and check its form and its config."""
    data = reading.json_object(path)
    if data.get("format") != FORMAT:
        raise ConfigError(
            f"{path}: format {data.get('format')!r}; this version reads format {FORMAT}"
        )
    pointer = reading.check(_POINTER, data, str(path))
    if pointer.config_hash != config.hash:
        raise ConfigError(f"{path}: made with a config other than the run's {CONFIG}")
    if pointer.round > config.rounds:
        raise ConfigError(f"{path}: damaged: round {pointer.round} of {config.rounds}")
    return pointer


def _restored(
    folder: Path, pointer: _Pointer, source: Path, clients: ClientStates, copy: bool = False
) -> Restored:
    """Return the contents of the checkpoint in ``folder``; ``source`` has the clients' files."""
    file = folder / pointer.file
    try:
        state, in_memory = _tensors(file, pointer)
        if copy:
            clients.copy(in_memory, source, pointer.clients)
        else:
            clients.restore(in_memory, pointer.clients)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename}: no such file; the run cannot continue from here"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ConfigError(f"{file}: damaged: {type(error).__name__}: {error}") from error
    return Restored(state, pointer.owners, clients)


def _tensors(file: Path, pointer: _Pointer) -> tuple[ServerState, dict[int, Mapping[str, Value]]]:
    """Return the server's state and the client states in a file of tensors."""
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != pointer.sha256:
        raise ConfigError(f"{file}: damaged: its SHA-256 differs from the recorded one")
    weights: dict[str, Tensor] = {}
    entries: dict[str, Tensor] = {}
    numbered: dict[str, dict[int, dict[str, Tensor]]] = {"client": {}, "sent": {}, "plain": {}}
    for full, tensor in from_bytes(data).items():
        part, name = full.split("/", 1)
        if part in numbered:
            number, name = name.split("/", 1)
            numbered[part].setdefault(int(number), {})[name] = tensor
        else:
            {"weights": weights, "server": entries}[part][name] = tensor
    sent = {}
    for round, flat in numbered["sent"].items():
        travels = unflatten(flat)
        plain = {**travels, **unflatten(numbered["plain"].get(round, {}))}
        sent[round] = Sent(travels, Payload(plain, "the broadcast"))
    for turn in pointer.at_work:  # a broadcast of nothing leaves no tensor
        sent.setdefault(turn.round, Sent({}, Payload({}, "the broadcast")))
    turns = tuple(AtWork(t.client, t.round, t.start, t.end) for t in pointer.at_work)
    flight = Flight(pointer.now, turns, sent)
    kept = Payload(unflatten(entries), "the server's state")
    clients: dict[int, Mapping[str, Value]] = {
        client: unflatten(flat) for client, flat in numbered["client"].items()
    }
    return ServerState(pointer.round, weights, kept, flight), clients


def check_weights(state: ServerState, initial: Weights) -> None:
    """Check that a checkpoint's weights fit the run's model.

    Raises:
        ConfigError: naming the first weight that is missing, unknown, or differs in shape or type.
    """

    def form(weights: Weights, name: str) -> str:
        found = weights.get(name)
        if found is None:
            return "missing"
        return f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"

    for name in (*initial, *state.weights):
        have, need = form(state.weights, name), form(initial, name)
        if have != need:
            raise ConfigError(
                f"the checkpoint does not fit the model: weight {name!r} is {have}, "
                f"the model's is {need}"
            )
