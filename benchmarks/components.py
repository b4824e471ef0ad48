"""Measure the cost of single parts next to that of the whole: medians, on one thread.

    python benchmarks/components.py --runs 9 --json components.json

- FedHPro's class gradients of a client, next to one local epoch of that client (W1).
- A prototype method's local term, forward and backward, next to a ResNet-10 step (W1).
- 30 steps of FedHPro's matching (10 classes, 5 hyper-prototypes each, d = 256).
- A client's turn in the pool without any training: job, seal, stream, aggregate; two model sizes.
- Scoring a model on W1's test images, next to their passes through the model alone.
- A round of `digits` that is scored, next to one that is not (``evaluate_every``).
- A client's weights encoded and decoded again by each codec (ResNet-10, 4.9 MB).
- Every method (`methods`): a client's turn beside FedAvg's, and the server's part of a round.

Measurements of part and whole alternate, so a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fedbench_baselines.fedproto import prototype_loss
from fedbench_baselines.fpl import fpl_loss
from fedbench_fedhpro.hyper_prototypes import match
from fedbench_fedhpro.losses import hpal, hpcl
from methods import BASE, costs
from plugin import fedbench_speed
from scoring import scored_rounds, scoring_parts
from speed import commit, machine
from torch import Tensor
from torch.nn import functional as F
from workloads import W1, overhead_goal

from fedbench import hookimpl
from fedbench.ambient import settled
from fedbench.config import resolve as configs
from fedbench.config.construct import build
from fedbench.config.model import RunConfig
from fedbench.context import ClientContext
from fedbench.plugins.discovery import discover
from fedbench.plugins.registry import Registry
from fedbench.plugins.replacing import replacements
from fedbench.runtime import Runtime
from fedbench.types import ClientJob, ClientResult, Payload, PerClass, Received, forward, nbytes
from fedbench.values import checksum

ROWS = 10
"""Prototypes per class in FPL's term: as many as W1 has clients."""

CODECS = ("topk", "qsgd", "signsgd")
"""Codecs that are measured with their default options."""


@dataclass(frozen=True, eq=False)
class Idle:
    """Train nothing."""

    @hookimpl
    def train(self) -> bool:
        return True


def registry() -> Registry:
    found = discover()
    if "speed-w1" not in found.names("dataset"):
        found.add(fedbench_speed, "benchmarks")
    idle = SimpleNamespace(register_plugins=hookimpl(lambda: {"idle": Idle}), fedbench_api=1)
    found.add(idle, "components")
    return found


def config(found: Registry, method: str, trainer: dict[str, Any], **given: Any) -> RunConfig:
    """Return W1's config with a method and a trainer, unless the method is its own trainer."""
    own = found.get("recipe", method).value.plugins
    below = {
        "iid": {"clients": W1.clients},
        **({"crop": {}, "flip": {}} if "sgd" in trainer else {}),
        "uniform": {},
        **trainer,
    }
    classes = ({name: found.get("plugin", name).value for name in some} for some in (own, below))
    for replaced in replacements(*classes):
        del below[replaced.old]
    data: dict[str, Any] = {
        "method": method,
        "data": f"speed-{W1.name}",
        "model": {"name": W1.model, **given.pop("model", {})},
        "plugins": {**below, **own},
        **given,
    }
    return configs.resolve(found, file=configs.Document(data, "components"))


def milliseconds(parts: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Return each part's median wall-clock time, in milliseconds, after one warm-up."""
    seen: dict[str, list[float]] = {name: [] for name in parts}
    for run in range(runs + 1):
        for name, part in parts.items():
            started = time.perf_counter()
            part()
            if run:
                seen[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(times) for name, times in seen.items()}


SGD = {
    "sgd": {"lr": W1.lr, "momentum": 0.0, "weight_decay": 0.0, "epochs": 1, "batch_size": W1.batch}
}


SLOW = {"sgd": {**SGD["sgd"], "lr": 0.001}}
"""Costs the same, and no loss goes to infinity."""


def turn(runtime: Runtime, job: ClientJob, values: dict[str, Any]) -> ClientContext:
    """Return a client's turn that received ``values``."""
    return ClientContext(
        job=job,
        rounds=1,
        num_classes=W1.classes,
        device=runtime.device,
        model=runtime.model,
        payload=Received(values, runtime.device),
        data=runtime.client_data(job.client),
        plugins=runtime.plugins,
        streams=runtime.streams,
        num_clients=len(runtime.parts),
        initial=runtime.initial,
    )


def class_gradients(found: Registry, runs: int) -> dict[str, float]:
    runtime = Runtime(config(found, "fedhpro", SGD), found, Path())
    plain = Runtime(config(found, "fedavg", SGD), found, Path())
    wrappers = [
        plugin
        for name, plugin in runtime.plugins.plugins
        if name in ("class_batches", "recalibration", "hyper_prototypes")
    ]
    job = ClientJob(1, 0, {})
    values: dict[str, Any] = {
        "weights": runtime.initial,
        "hyper_prototypes": torch.randn(10, 5, 256),
    }

    def gradients() -> None:
        runtime.model.load_state_dict(runtime.initial)
        ctx = turn(runtime, job, values)
        for plugin in wrappers:
            next(plugin.client_update(ctx=ctx))  # type: ignore[attr-defined]

    def epoch() -> None:
        plain.run_client(job, {"weights": plain.initial})

    return milliseconds({"class gradients": gradients, "local epoch": epoch}, runs)


def terms(found: Registry, runs: int) -> dict[str, float]:
    runtime = Runtime(config(found, "fedavg", SGD), found, Path())
    model = runtime.model.train()
    x = torch.rand(W1.batch, *W1.shape).contiguous(memory_format=torch.channels_last)
    y = torch.arange(W1.batch) % W1.classes
    d = 256
    one = PerClass(torch.arange(10), torch.randn(10, d), torch.ones(10).long())
    many = PerClass(
        torch.arange(10).repeat(ROWS), torch.randn(10 * ROWS, d), torch.ones(10 * ROWS).long()
    )
    hyper = torch.randn(10, 5, d)
    features = torch.randn(W1.batch, d, requires_grad=True)

    def term(loss: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(), features)

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(forward(model, x).logits, y).backward()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(p.grad, alpha=-0.001)  # type: ignore[arg-type]

    return milliseconds(
        {
            "ResNet-10 step": step,
            "fedproto": term(lambda: prototype_loss(features, y, one)),
            "fpl": term(lambda: fpl_loss(features, y, many, 0.02)),
            "hpcl": term(lambda: hpcl(features, y, hyper, 0.05, 0.1)),
            "hpal": term(lambda: hpal(features, y, hyper)),
        },
        runs,
    )


def matching(runs: int) -> dict[str, float]:
    gradients = PerClass(torch.arange(10), torch.randn(10, 256) / 100, torch.ones(10).long())
    problem = gradients, torch.randn(10, 256) / 16, torch.zeros(10)
    start = torch.randn(10, 5, 256)
    return milliseconds(
        {"30 matching steps": lambda: match(start, *problem, 30, 0.1, "coordinate")}, runs
    )


def codecs(found: Registry, runs: int) -> dict[str, float]:
    """Return the time to encode one client's weights and to decode them on the server."""
    runtime = Runtime(config(found, "fedavg", SGD), found, Path())
    sent = {"weights": runtime.initial}
    trained = {
        name: w + torch.randn_like(w) / 100 if w.is_floating_point() else w
        for name, w in runtime.initial.items()
    }
    ctx = turn(runtime, ClientJob(1, 0, {}), sent)

    def there_and_back(codec: Any) -> None:
        travels = codec.send_uploads(ctx=ctx, uploads=Payload({"weights": trained}, "uploads"))
        payload = Payload(sent, "the broadcast")
        result = ClientResult(0, 1, Payload(travels, "uploads"), {}, {}, 0.0, sent=payload)
        next(codec.receive_uploads(results=iter([result])))

    made = {name: found.get("plugin", name).value() for name in CODECS}
    return milliseconds({n: partial(there_and_back, codec) for n, codec in made.items()}, runs)


def checksums(runs: int) -> dict[str, float]:
    sent = torch.randn(5_000_000)  # 20 MB, more than a core's caches hold
    return milliseconds({"checksum": lambda: checksum(sent), "copy": lambda: sent.clone()}, runs)


def overhead(found: Registry, runs: int, filters: int) -> tuple[float, dict[str, float]]:
    """Return the model's size in MB, and the time that a client without any training adds.

    It is the slope between rounds of few and of many clients in a pool of 2, with digests as in a
    run that is kept.
    """
    settings = config(found, "fedavg", {"idle": {}}, model={"filters": filters})
    runtime = Runtime(settings, found, Path())
    workers = build(found, "executor", {"name": "pool", "workers": 2}).open(runtime)
    few, many = (
        [ClientJob(1, client % W1.clients, {}) for client in range(n * W1.clients)] for n in (1, 3)
    )

    def turns(jobs: Sequence[ClientJob]) -> None:
        answers = workers.run({"weights": runtime.initial}, jobs)
        runtime.plugins.hook.aggregate(ctx=None, state=None, results=answers)

    try:
        parts = {"few": partial(turns, few), "many": partial(turns, many)}
        times = milliseconds(parts, runs)
    finally:
        workers.close()
    slope = (times["many"] - times["few"]) / (len(many) - len(few))
    return nbytes(runtime.initial) / 1e6, {f"client, {filters} filters": slope}


def evaluation(found: Registry, runs: int) -> dict[str, float]:
    """Return the time of scoring W1's images in a pool, and of their passes alone on one core."""
    runtime = Runtime(config(found, "fedavg", SLOW), found, Path())
    workers = build(found, "executor", {"name": "pool", "workers": 2}).open(runtime)
    try:
        return milliseconds(scoring_parts(runtime, workers), runs)
    finally:
        workers.close()


def methods(found: Registry, names: Sequence[str], runs: int) -> list[dict[str, Any]]:
    """Return a row per method, on W1's clients also for one that would make others.

    Methods that refuse W1's model are compared on the same with group norm.
    """
    plain = Runtime(config(found, BASE, SLOW), found, Path())
    left, rows = list(names), []
    for model in ({}, {"norm": "group"}):

        def runtime(name: str, model: dict[str, Any] = model) -> Runtime:
            settings = config(found, name, SLOW, model=dict(model), rounds=3, evaluate_every=3)
            return Runtime(settings, found, Path(), placed=(plain.data, plain.parts))

        measured, refused = costs(runtime, left, runs) if left else ({}, {})
        rows += [{"name": name, "model": model, **asdict(c)} for name, c in measured.items()]
        left = list(refused)
    return rows + [{"name": name, "refused": why} for name, why in refused.items()]


def print_methods(rows: Sequence[dict[str, Any]], runs: int) -> None:
    for row in rows:
        if "refused" in row:
            print(f"{row['name']:<22} refused: {row['refused']}")
            continue
        print(
            f"{row['name']:<22} turn / FedAvg's {row['turn']:6.2f}  extra {row['extra_ms']:+8.1f} "
            f"ms  server {row['server_ms']:8.1f} ms  n = {runs}"
        )


def parts(found: Registry, runs: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return every time in milliseconds, and the rows that compare them with their targets."""
    with settled():
        gradients = class_gradients(found, runs)
        local = terms(found, runs)
        steps = matching(runs)
        sums = checksums(runs)
        coded = codecs(found, runs)
        small, first = overhead(found, runs, 32)
        large, second = overhead(found, runs, 144)
        scored = evaluation(found, runs) | scored_rounds(found)
    whole, step = gradients["local epoch"], local["ResNet-10 step"]
    rows = [("class gradients / local epoch", gradients["class gradients"] / whole, 0.40)]
    rows += [
        (f"term {name} / ResNet-10 step", ms / step, 0.05)
        for name, ms in local.items()
        if name != "ResNet-10 step"
    ]
    rows += [("30 matching steps, ms", steps["30 matching steps"], 20.0)]
    rows += [("checksum / copy, 20 MB", sums["checksum"] / sums["copy"], 1.0)]
    rows += [
        (f"{name} there and back, {small:.1f} MB, ms", ms, 200.0) for name, ms in coded.items()
    ]
    for megabytes, ms in ((small, first), (large, second)):
        (value,) = ms.values()
        rows.append(
            (f"overhead per client, {megabytes:.1f} MB, ms", value, overhead_goal(megabytes))
        )
    rows += [
        ("scoring / its passes on 2 cores", 2 * scored["evaluation"] / scored["its passes"], 1.2),
        (
            "scored round of digits / one without scores",
            scored["scored round"] / scored["round without scores"],
            1.2,
        ),
    ]
    times = {**gradients, **local, **steps, **sums, **coded, **first, **second, **scored}
    return times, [{"name": n, "value": v, "target": t} for n, v, t in rows]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=int, default=9, help="repetitions of the parts, n; 0 for methods only"
    )
    parser.add_argument("--method-runs", type=int, default=3, help="repetitions of the methods, n")
    parser.add_argument(
        "--methods", metavar="NAMES", help="with commas, or '' for none; default all that there are"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write every number")
    given = parser.parse_args(argv)
    load = os.getloadavg()[0]
    found = registry()
    times, rows = parts(found, given.runs) if given.runs else ({}, [])
    names = found.names("recipe") if given.methods is None else given.methods.split(",")
    per_method = methods(found, [name for name in names if name], given.method_runs)
    for row in rows:
        print(
            f"{row['name']:<42} {row['value']:8.3f}  target {row['target']:6.2f}  n = {given.runs}"
        )
    print_methods(per_method, given.method_runs)
    if given.json:
        result = {
            "runs": given.runs,
            "method_runs": given.method_runs,
            "command": [Path(sys.argv[0]).name, *(argv if argv is not None else sys.argv[1:])],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": machine(),
            "load_at_start": load,
            "milliseconds": times,
            "methods": per_method,
            "rows": rows,
        }
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
