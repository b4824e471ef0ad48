"""The contestants of the speed benchmark: their commands, environments and versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from environments import Environment
from workloads import Workload

HERE = Path(__file__).parent
ROOT = HERE.parent

PEERS = {
    # The newest release that can be installed; the table and the JSON file name its version.
    "flower": Environment(("flwr[simulation]>=1.40,<2",), ("flwr", "ray")),
    "pfl": Environment(("pfl>=0.6,<0.7",), ("pfl",)),
    "fluke": Environment(("fluke-fl>=0.8.1,<0.9",), ("fluke-fl",)),
}

SILENT = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "WANDB_MODE": "disabled"}
"""Switches off the peers' telemetry."""


@dataclass
class Contestant:
    """A contestant: one row of the table."""

    name: str
    command: Callable[[Workload, int, Path], list[str]]
    """Returns the command for a workload, a number of rounds and an empty folder."""
    versions: dict[str, str]
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables besides those of this process."""
    gpu: str | None = None
    """The UUID of the GPU that it computes on, whose memory is measured."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.env}


def plain(*words: str) -> Contestant:
    """Return the hand-written loop; ``words`` are its further arguments."""
    start = [sys.executable, str(HERE / "plain.py")]
    return Contestant(
        "plain",
        lambda workload, rounds, folder: [*start, workload.name, str(rounds), *words],
        versions(sys.executable, ("torch",)),
    )


def peer(name: str, folder: Path, own_torch: bool, *words: str) -> Contestant:
    """Return a peer's driver, in an environment of its own that is created when missing.

    ``words`` are its further arguments.

    Raises:
        NotInstalled: naming the step that failed.
    """
    python = PEERS[name].make(name, folder, own_torch)
    # As a module: for a script, its folder is searched first, where pfl.py would hide pfl itself.
    start = [python, "-m", f"peers.{name}"]
    return Contestant(
        name,
        lambda workload, rounds, folder: [*start, workload.name, str(rounds), *words],
        versions(python, ("torch", *PEERS[name].packages)),
        {"PYTHONPATH": str(HERE), **SILENT},
    )


def fedbench(variant: str) -> Contestant:
    """Return fedbench with a variant of a method: ``METHOD[-bf16][:KEY=VALUE]...``."""
    method, *sets = variant.split(":")
    if method.endswith("-bf16"):
        method, sets = method.removesuffix("-bf16"), [*sets, "precision=bf16"]
    return Contestant(
        f"fedbench {variant}",
        lambda workload, rounds, folder: fedbench_command(
            method, config(workload), rounds, folder, sets
        ),
        versions(sys.executable, ("torch",)),
        fedbench_env(),
    )


def fedbench_command(
    method: str,
    config: dict[str, object],
    rounds: int,
    folder: Path,
    sets: Sequence[str] = (),
) -> list[str]:
    """Write a config file into ``folder``, and return the ``fedbench run`` command that uses it."""
    file = folder / "workload.yaml"
    file.write_text(json.dumps(config, indent=1))  # JSON is YAML
    start = [sys.executable, "-m", "fedbench", "run", method, "--rounds", str(rounds)]
    more = [part for one in sets for part in ("--set", one)]
    return [*start, "--config", str(file), "--out", str(folder / "run"), *more]


def fedbench_env() -> dict[str, str]:
    """Return environment variables that make this tree's fedbench and the benchmarks' data load."""
    own = [HERE / "plugin", HERE, ROOT, ROOT / "plugins/baselines", ROOT / "plugins/fedhpro"]
    search = [*map(str, [*own, ROOT / "datasets"]), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, search))}


def config(workload: Workload) -> dict[str, object]:
    """Return the workload as a config file; the method comes from the command."""
    models = {
        "resnet10": {"name": "resnet10", "filters": 32},
        "cnn": {"name": "cnn", "width": 32, "feature_size": 512},
    }
    sgd = {"lr": workload.lr, "batch_size": workload.batch, "epochs": 1}
    return {
        "data": f"speed-{workload.name}",
        "model": models[workload.model],
        "accuracy": {"rule": "last"},
        "plugins": {
            "iid": {"clients": workload.clients},
            **({"crop": {}, "flip": {}} if workload.augment else {}),
            "uniform": {"fraction": workload.online / workload.clients},
            "sgd": {**sgd, "momentum": 0.0, "weight_decay": 0.0},
        },
    }


def versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of ``python`` and of packages in its environment."""
    code = (
        "import sys, json, platform; from importlib.metadata import version; "
        "print(json.dumps({'python': platform.python_version(), "
        "**{p: version(p) for p in sys.argv[1:]}}))"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", code, *packages], capture_output=True, text=True, check=True, env=env
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found
