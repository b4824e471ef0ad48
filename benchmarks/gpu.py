"""Compare fedbench with a plain loop and Flower on one GPU: times, memory, digests.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --device cpu --short

Each workload is trained by the plain loop, twice: with PyTorch's defaults, and ``strict``, with the
arithmetic that fedbench sets; by fedbench with one client after the other, in float32 and bfloat16;
and by fedbench and Flower with several clients at once on the one GPU, each in a process of Ray's.
fedbench's executor for that is ``ray``; its default, ``pool``, runs clients one after the other on
a GPU. The contestants alternate, as in ``speed.py``.

On a CPU, the same contestants run in the same way: to see that it works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gpu_memory
from contestants import HERE, Contestant, fedbench, plain
from speed import Result, invited, opened, play, show
from workloads import SHORT, WORKLOADS, gpu_share

LOOK = """
import json, sys, torch
torch.ones(1, device=sys.argv[1])
found = {"name": "none, on a CPU", "uuid": None, "memory": None, "cuda": None}
if sys.argv[1] == "cuda":
    gpu = torch.cuda.get_device_properties(0)
    found = {"name": gpu.name, "uuid": f"GPU-{gpu.uuid}", "memory": gpu.total_memory}
    found["cuda"] = torch.version.cuda
print(json.dumps({**found, "torch": torch.__version__}))
"""
"""Uses the device in a process of its own, because the runner does not load PyTorch."""


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workloads", default="w1,w2", metavar="NAMES", help="default %(default)s")
    parser.add_argument(
        "--variants",
        default="fedavg,fedavg-bf16",
        metavar="NAMES",
        help="fedbench's rows, as for speed.py; the first one also with several clients at once; "
        "default %(default)s",
    )
    parser.add_argument(
        "--against", default="flower", choices=("flower", ""), help="'' leaves Flower out"
    )
    parser.add_argument(
        "--at-once", type=int, default=4, metavar="N", help="clients at once; default %(default)s"
    )
    parser.add_argument(
        "--runs", type=int, default=2, help="processes of each contestant; default %(default)s"
    )
    parser.add_argument(
        "--rounds", type=int, default=6, help="rounds of each process; default %(default)s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every number")
    parser.add_argument("--envs", type=Path, default=HERE / ".envs", help="peers' environments")
    parser.add_argument("--own-torch", action="store_true", help="PyTorch in each environment")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it works")
    given = parser.parse_args(argv)
    given.against = [given.against] if given.against else []
    given.variants = given.variants.split(",")
    given.workloads = given.workloads.split(",")
    if unknown := set(given.workloads) - {"w1", "w2"}:
        parser.error(f"--workloads: w1 or w2, not {', '.join(sorted(unknown))}")
    if given.rounds < 2:
        parser.error("--rounds: at least 2, because the first round is not typical")
    if given.at_once < 1:
        parser.error("--at-once: at least 1")
    if given.short:
        given.rounds = 2
    return given


def look(device: str) -> dict[str, Any]:
    """Return what the device is.

    Raises:
        SystemExit: when it cannot be used.
    """
    command = [sys.executable, "-c", LOOK, device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise SystemExit(
            f"gpu.py: device {device!r} cannot be used here: {why}\n"
            "Without a GPU, --device cpu --short shows that the script works."
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def line_up(given: argparse.Namespace, uuid: str | None) -> tuple[list[Contestant], dict[str, str]]:
    """Return the contestants in their order, and the reason for each one that cannot take part."""
    n, device = given.at_once, f"device={given.device}"
    ours = [
        replace(fedbench(f"{one}:{device}:executor=inline"), name=f"fedbench {one}")
        for one in given.variants
    ]
    several, absent = f"fedbench {given.variants[0]}, {n} at once", {}
    if find_spec("ray"):
        words = [given.variants[0], device, "executor=ray", f"executor.workers={n}"]
        if share := gpu_share(n, given.device):
            words.append(f"executor.gpus_per_client={share}")
        ours.append(replace(fedbench(":".join(words)), name=several))
    else:
        absent[several] = "Ray is not installed: pip install 'fedbench-toolkit[ray]'"
    peers, without = invited(given, given.device, str(n))
    strict = replace(plain(given.device, "strict"), name="plain, strict")
    every = [plain(given.device), strict, *ours, *peers]
    return [replace(one, gpu=uuid) for one in every], absent | without


def digests(result: Result) -> list[str]:
    """Return a line on the digests of each of fedbench's contestants, and one on all executors."""
    lines, by_name = [], {}
    for name, entry in result["contestants"].items():
        found = [run["weights_sha256"] for run in entry["runs"]]
        if None in found:
            continue
        by_name[name] = found
        count = len(set(found))
        many = "one digest" if count == 1 else f"{count} different digests"
        lines.append(f"{name}: {many} of the final weights, n = {len(found)}")
    one_by_one = result["at_once_of"]
    several = next((name for name in by_name if name.startswith(f"{one_by_one}, ")), None)
    if several and one_by_one in by_name:
        same = set(by_name[several]) == set(by_name[one_by_one])
        lines.append(f"{several}: {'the same' if same else 'not the same'} digests as {one_by_one}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    words = list(argv if argv is not None else sys.argv[1:])
    given = arguments(words)
    accelerator = look(given.device)
    print(f"device: {accelerator['name']}", flush=True)
    before = gpu_memory.used(accelerator["uuid"])
    if given.device == "cuda" and before is None:
        print("GPU memory is not measured; it needs: pip install nvidia-ml-py", flush=True)
    contestants, absent = line_up(given, accelerator["uuid"])
    result: Result = opened("gpu.py", words)
    result |= {"device": given.device, "accelerator": accelerator, "in_use_before": before}
    result |= {
        "short": given.short,
        "runs": given.runs,
        "rounds": given.rounds,
        "at_once": given.at_once,
    }
    result["workloads"] = {}

    def save() -> None:
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n")

    for name in given.workloads:
        workload = SHORT[name] if given.short else WORKLOADS[name]
        one: Result = {"workload": workload.as_dict, "contestants": {}, "summary": {}, "failed": {}}
        one |= {"not_installed": absent, "at_once_of": f"fedbench {given.variants[0]}"}
        one |= {key: result[key] for key in ("rounds", "machine")}
        result["workloads"][name] = one
        play(workload, contestants, given.runs, given.rounds, lambda _: save(), one)
        one["digests"] = digests(one)
        save()
        show(one)
        print("\n".join(one["digests"]), flush=True)
    failed = {name for one in result["workloads"].values() for name in one["failed"]}
    return 1 if failed - {"flower"} else 0


if __name__ == "__main__":
    sys.exit(main())
