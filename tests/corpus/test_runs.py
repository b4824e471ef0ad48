"""Bad run directories, checkpoints and data files: one clear line that names the file."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

DEEP = "[" * 100_000

BROKEN = {
    "no UTF-8": b"\xff\xfe\n",
    "zero bytes": b"\x00" * 64 + b"\n",
    "a list": b"[]\n",
    "no keys": b"{}\n",
    "deep": DEEP.encode() + b"\n",
}
"""Contents that are invalid in every file of a run, whatever its lines hold."""


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def lines(run: Path, change: Callable[[list[str]], list[str]]) -> None:
    path = run / "rounds.jsonl"
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))


def first_line(run: Path, **changes: Any) -> None:
    lines(run, lambda old: [json.dumps({**json.loads(old[0]), **changes}), *old[1:]])


def accuracy(run: Path, **changes: Any) -> None:
    path = run / "result.json"
    edit(path, accuracy={**json.loads(path.read_text())["accuracy"], **changes})


FINISHED: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{
        f"{name}: {what}": (lambda run, n=name, c=content: (run / n).write_bytes(c), name)
        for name in ("result.json", "rounds.jsonl", "config.yaml")
        for what, content in {
            **BROKEN,
            "a word": b'"x"\n',
            "cut": b'{"method": \n',
        }.items()
    },
    "result.json: empty": (lambda r: (r / "result.json").write_text(""), "result.json"),
    "result.json: a long number": (
        lambda r: (r / "result.json").write_text('{"a": ' + "9" * 5000 + "}"),
        "result.json",
    ),
    "result: seconds": (lambda r: edit(r / "result.json", seconds="x"), "damaged: seconds"),
    "result: rounds": (lambda r: edit(r / "result.json", rounds=7), "the result has 7"),
    "result: rounds, text": (lambda r: edit(r / "result.json", rounds="x"), "damaged: rounds"),
    "result: bytes": (lambda r: edit(r / "result.json", bytes=5), "damaged: bytes"),
    "result: bytes up": (lambda r: edit(r / "result.json", bytes={"up": 1}), "bytes.up"),
    "result: changes": (lambda r: edit(r / "result.json", changes="x"), "damaged: changes"),
    "result: accuracy": (lambda r: edit(r / "result.json", accuracy=[]), "damaged: accuracy"),
    "result: mean": (lambda r: accuracy(r, mean="x"), "accuracy.mean"),
    "result: domains": (lambda r: accuracy(r, domains=[1]), "accuracy.domains"),
    "result: a domain": (lambda r: accuracy(r, domains={"ink": "x"}), "accuracy.domains.ink"),
    "result: digest": (lambda r: edit(r / "result.json", weights_sha256=5), "weights_sha256"),
    "rounds: one too few": (lambda r: lines(r, lambda old: old[:-1]), "damaged: 2 rounds"),
    "rounds: none": (lambda r: (r / "rounds.jsonl").unlink(), "damaged: 0 rounds"),
    "rounds: out of order": (lambda r: lines(r, lambda old: old[::-1]), ":1: damaged: holds round"),
    "rounds: one twice": (lambda r: lines(r, lambda o: [o[0], *o]), ":2: damaged: holds round 1"),
    "rounds: a blank line": (lambda r: lines(r, lambda o: [o[0], "", *o[1:]]), ":2: damaged"),
    "rounds: half a line": (lambda r: lines(r, lambda o: [o[0], o[1][:50], o[2]]), ":2: damaged"),
    "round: scores": (lambda r: first_line(r, scores=5), ":1: damaged: scores"),
    "round: a rule": (lambda r: first_line(r, scores={"classifier": 1}), ":1: damaged: scores"),
    "round: clients": (lambda r: first_line(r, clients="x"), ":1: damaged: clients"),
    "round: metrics": (lambda r: first_line(r, metrics={"a": "b"}), ":1: damaged: metrics.a"),
    "round: bytes": (lambda r: first_line(r, bytes_up=[1]), ":1: damaged: bytes_up"),
    "round: number": (lambda r: first_line(r, round=10**30), ":1: damaged: holds round"),
    "round: seconds": (lambda r: first_line(r, seconds=None), ":1: damaged: seconds"),
}
IN_REPORTS = {
    **{
        f"{name}: {what}": (lambda run, n=name, c=content: (run / n).write_bytes(c), name)
        for name in ("environment.json", "partition.json")
        for what, content in {"cut": b'{"a', "a list": b"[]", "deep": DEEP.encode()}.items()
    },
    "partition: counts": (lambda r: edit(r / "partition.json", counts=[1]), "damaged: counts"),
    "partition: classes": (lambda r: edit(r / "partition.json", classes=5), "damaged: classes"),
}


@pytest.mark.parametrize("name", [n for n in FINISHED if not n.startswith("config.yaml")])
def test_show_of_a_damaged_run(name: str, sandbox: Any, copy: Any) -> None:
    damage, text = FINISHED[name]
    damage(copy("finished"))
    sandbox.refused(["show", "run"], text)


@pytest.mark.parametrize("name", [*FINISHED, *IN_REPORTS])
def test_report_of_a_damaged_run(name: str, sandbox: Any, copy: Any) -> None:
    damage, text = {**FINISHED, **IN_REPORTS}[name]
    damage(copy("finished"))
    sandbox.refused(["report", "run", "--out", "report"], text)


def tensors(run: Path, **values: torch.Tensor) -> None:
    raw(run, save(values))


def raw(run: Path, data: bytes) -> None:
    """Replace a checkpoint's file of tensors, and update its digest."""
    (run / "checkpoint" / "state-2.safetensors").write_bytes(data)
    edit(run / "checkpoint" / "checkpoint.json", sha256=hashlib.sha256(data).hexdigest())


def pointer(**changes: Any) -> Callable[[Path], None]:
    return lambda run: edit(run / "checkpoint" / "checkpoint.json", **changes)


def write(content: bytes) -> Callable[[Path], Any]:
    return lambda run: (run / "checkpoint" / "checkpoint.json").write_bytes(content)


def link(run: Path, name: str) -> None:
    shutil.rmtree(run / name)
    (run / name).symlink_to(Path("../outside").resolve())


def header(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


CUT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pointer: empty": (write(b""), "checkpoint.json: damaged"),
    "pointer: cut": (write(b'{"format": 1, "rou'), "checkpoint.json: damaged"),
    "pointer: a list": (write(b"[]"), "checkpoint.json: damaged"),
    "pointer: no UTF-8": (write(b"\xff{}"), "checkpoint.json: damaged"),
    "pointer: deep": (write(DEEP.encode()), "nested too deeply"),
    "pointer: no keys": (write(b"{}"), "format None"),
    "another format": (pointer(format=99), "format 99; this version reads format 1"),
    "a format of text": (pointer(format="1"), "format '1'"),
    "round 0": (pointer(round=0), "damaged: round"),
    "round -1": (pointer(round=-1), "damaged: round"),
    "round 4 of 3": (pointer(round=4), "round 4 of 3"),
    "a huge round": (pointer(round=10**40), "round"),
    "a round of text": (pointer(round="2"), "damaged: round"),
    "a round that is true": (pointer(round=True), "damaged: round"),
    "another config": (pointer(config_hash="0" * 64), "made with a config other than"),
    "another torch": (pointer(versions={"torch": "1.0"}), "made with torch 1.0"),
    "no versions": (pointer(versions={}), "made with torch an unknown version"),
    "versions: a list": (pointer(versions=[1]), "damaged: versions"),
    "owners: a list": (pointer(owners=[1]), "damaged: owners"),
    "owners: numbers": (pointer(owners={"a": 1}), "damaged: owners.a"),
    "another digest": (pointer(sha256="0" * 64), "its SHA-256 differs from the recorded one"),
    "a digest of numbers": (pointer(sha256=5), "damaged: sha256"),
    **{
        f"file: {name}": (pointer(file=name), "damaged: file")
        for name in ("", ".", "../../outside/state-9.safetensors", "/etc/passwd", "state-2", "a\0b")
    },
    "file: not there": (pointer(file="state-9.safetensors"), "state-9.safetensors: no such file"),
    "clients: a list": (pointer(clients=[1]), "damaged: clients"),
    "clients: no number": (pointer(clients={"x": "0.1.safetensors"}), "damaged: clients"),
    **{
        f"clients: {name}": (
            pointer(clients={"0": name}),
            "is not the name of a client's state file",
        )
        for name in ("../../outside/precious", "/etc/passwd", "", "0.safetensors", "..")
    },
    "clients: not there": (pointer(clients={"0": "0.9.safetensors"}), "no such file"),
    "tensors: empty": (lambda r: raw(r, b""), "state-2.safetensors: damaged"),
    "tensors: cut": (lambda r: raw(r, save({"weights/a": torch.ones(9)})[:-5]), "damaged"),
    "tensors: a pickle": (lambda r: raw(r, pickle.dumps({"a": 1})), "damaged"),
    "tensors: a huge header": (lambda r: raw(r, b"\xff" * 8 + b"{}"), "damaged"),
    "tensors: a header of 4 GB": (lambda r: raw(r, struct.pack("<Q", 2**32) + b"{}"), "damaged"),
    "tensors: no JSON": (lambda r: raw(r, header("{{{{")), "damaged"),
    "tensors: deep": (lambda r: raw(r, header('{"a":' + "[" * 900)), "damaged"),
    "tensors: beyond the file": (
        lambda r: raw(
            r,
            header('{"weights/a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}')
            + b"1234",
        ),
        "damaged",
    ),
    "tensors: a type that is not there": (
        lambda r: raw(r, header('{"weights/a":{"dtype":"Q9","shape":[],"data_offsets":[0,0]}}')),
        "damaged",
    ),
    "tensors: no part": (lambda r: tensors(r, a=torch.ones(1)), "damaged"),
    "tensors: an unknown part": (lambda r: tensors(r, **{"x/a": torch.ones(1)}), "damaged"),
    "tensors: a client without a number": (
        lambda r: tensors(r, **{"client/x/Tensor|1|a": torch.ones(1)}),
        "damaged",
    ),
    "tensors: no kind": (
        lambda r: tensors(r, **{"server/a": torch.ones(1)}),
        "damaged",
    ),
    "tensors: half a PerClass": (
        lambda r: tensors(r, **{"server/PerClass|1|alabels": torch.ones(1)}),
        "damaged",
    ),
    "tensors: no weights": (
        lambda r: tensors(r, **{"server/Tensor|1|a": torch.ones(1)}),
        "is missing, the model's is float32",
    ),
    "tensors: weights of another model": (
        lambda r: tensors(r, **{"weights/hidden.weight": torch.ones(2, 2)}),
        "weight 'hidden.weight' is float32 (2, 2), the model's is float32 (6, 64)",
    ),
    "rounds: gone": (lambda r: (r / "rounds.jsonl").unlink(), "has 0 rounds, the checkpoint 2"),
    "rounds: cut": (
        lambda r: lines(r, lambda old: [old[0], old[1][:40]]),
        "rounds.jsonl:2: damaged",
    ),
    "checkpoint: a link": (lambda r: link(r, "checkpoint"), "checkpoint is a link"),
    "clients: a link": (lambda r: link(r, "clients"), "clients is a link"),
    "the lock: a link": (
        lambda r: ((r / ".lock").unlink(), (r / ".lock").symlink_to("../../outside/precious")),
        ".lock is a link",
    ),
    "the lock: a folder": (
        lambda r: ((r / ".lock").unlink(), (r / ".lock").mkdir()),
        "run cannot be written",
    ),
    "a client's state: cut": (
        lambda r: [p.write_bytes(p.read_bytes()[:-3]) for p in (r / "clients").iterdir()],
        ".safetensors: damaged",
    ),
    "config.yaml: gone": (lambda r: (r / "config.yaml").unlink(), "holds no run"),
    "config.yaml: a tag": (
        lambda r: (r / "config.yaml").write_text("a: !!python/name:os.system"),
        "config.yaml:1: tags",
    ),
}


@pytest.mark.parametrize("name", list(CUT))
def test_resuming_from_a_damaged_checkpoint(name: str, sandbox: Any, copy: Any) -> None:
    damage, text = CUT[name]
    damage(copy("cut"))
    sandbox.refused(["resume", "run"], text)


def digest(**changes: Any) -> Callable[[Path], None]:
    """Change keys of the first line of ``digests.jsonl``."""

    def change(run: Path) -> None:
        path = run / "digests.jsonl"
        first, *rest = path.read_text().splitlines()
        first = json.dumps({**json.loads(first), **changes})
        path.write_text("\n".join([first, *rest, ""]))

    return change


DIGESTS: dict[str, Callable[[Path], Any]] = {
    **{
        f"a line: {what}": lambda run, c=content: (run / "digests.jsonl").write_bytes(c)
        for what, content in {
            **BROKEN,
            "empty": b"\n",
            "cut": b'{"round": \n',
            "five megabytes": b"x" * 5_000_000 + b"\n",
            "a long number": b'{"round": ' + b"9" * 5000 + b"}\n",
        }.items()
    },
    "round: infinite": digest(round=float("inf")),
    "round: NaN": digest(round=float("nan")),
    "round: 0": digest(round=0),
    "round: a list": digest(round=[1]),
    "names: numbers": digest(names=[1]),
    "clients: a list": digest(clients=["x"]),
    "clients: no number": digest(clients={"x": "00000000"}),
    "clients: one digest too few": digest(clients={"0": "00000000"}),
    "clients: a number": digest(clients={"0": 5}),
    "server: a list of pairs": digest(server=[["a", "b"]]),
    "server: numbers": digest(server={"a": 5}),
}


@pytest.mark.parametrize("name", list(DIGESTS))
def test_verifying_and_resuming_with_damaged_digests(name: str, sandbox: Any, copy: Any) -> None:
    DIGESTS[name](copy("finished"))
    sandbox.refused(["verify", "run"], "digests.jsonl:1: damaged", status=2)
    shutil.rmtree("run")
    DIGESTS[name](copy("cut"))
    sandbox.refused(["resume", "run"], "digests.jsonl:1: damaged")


class Payload:
    """Its pickle creates the canary file when `pickle` loads it."""

    def __reduce__(self) -> Any:
        return open, ("CANARY", "w")


def idx(*shape: int, count: int | None = None) -> bytes:
    size = count if count is not None else torch.Size(shape).numel()
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + b"\0" * size


META = "cifar10/cifar-10-batches-py/batches.meta"
IMAGES = "mnist/train-images-idx3-ubyte.gz"
DATA: dict[str, tuple[str, str, bytes]] = {
    "no files": ("mnist", "x", b""),
    "empty": ("mnist", IMAGES, b""),
    "a web page": ("mnist", IMAGES, b"<html>404</html>"),
    "cut gzip": ("mnist", IMAGES, gzip.compress(idx(20, 28, 28))[:-9]),
    "damaged gzip": ("mnist", IMAGES, gzip.compress(idx(9, 28, 28))[:20] + b"\xff" * 40),
    "too short": ("mnist", IMAGES, gzip.compress(idx(20, 28, 28, count=5))),
    "too long": ("mnist", IMAGES, gzip.compress(idx(20, 28, 28, count=99999))),
    "one dimension": ("mnist", IMAGES, gzip.compress(idx(20))),
    "huge dimensions": ("mnist", IMAGES, gzip.compress(idx(2**31, 2**31, 2**31, count=4))),
    "no images": ("mnist", IMAGES, gzip.compress(idx(0, 28, 28))),
    "a pickle for IDX": ("mnist", IMAGES, pickle.dumps(Payload())),
    "an evil batch": (
        "cifar10",
        META,
        pickle.dumps(Payload()),
    ),
    "an evil archive": ("cifar10", "cifar10/cifar-10-python.tar.gz", pickle.dumps(Payload())),
    "a cut archive": ("cifar10", "cifar10/cifar-10-python.tar.gz", gzip.compress(b"x" * 600)[:-4]),
    "an empty archive": ("cifar100", "cifar100/cifar-100-python.tar.gz", b""),
}


@pytest.mark.parametrize("name", list(DATA))
def test_bad_data_files(name: str, sandbox: Any) -> None:
    data, file, content = DATA[name]
    path = Path("root") / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    sandbox.refused(["run", "fedavg", "--data", data, "--data-root", "root"], "root/")
