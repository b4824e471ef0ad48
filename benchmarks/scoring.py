"""The parts of scoring that `components` measures."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

import torch

from fedbench.config import resolve as configs
from fedbench.contracts import Workers
from fedbench.engine.run import Run
from fedbench.pipeline import Pipeline
from fedbench.plugins.registry import Registry
from fedbench.runtime import Runtime
from fedbench.types import forward


def scoring_parts(runtime: Runtime, workers: Workers) -> dict[str, Callable[[], object]]:
    """Return what scores the test images on workers, and what makes their passes alone, here."""
    chunks = runtime.chunks(1, 0)
    images = [runtime.data.test.inputs[chunk.start : chunk.stop] for chunk in chunks]
    pipeline = Pipeline(runtime.plugins, runtime.device, lambda name: runtime.streams.torch(name))

    def scored() -> None:
        weights = {name: value.clone() for name, value in runtime.initial.items()}
        deque(workers.test(weights, chunks), maxlen=0)

    @torch.no_grad()
    def passes() -> None:
        runtime.model.eval()
        for inputs in images:
            forward(runtime.model, pipeline(inputs, False))

    return {"evaluation": scored, "its passes": passes}


def scored_rounds(found: Registry) -> dict[str, float]:
    """Return the milliseconds of a round of `digits` with and without scores.

    Both are medians over the rounds of one run, in which they take turns.
    """
    sets = ["data=digits", "rounds=13", "evaluate_every=2", "executor.workers=2"]
    settings = configs.resolve(found, "fedavg", sets=sets)
    seen: dict[bool, list[float]] = {True: [], False: []}
    for result in Run(settings, registry=found).rounds():
        if 2 < result.round < settings.rounds:  # the last one is scored anyway
            seen[bool(result.scores)].append(1e3 * result.seconds)
    names = {True: "scored round", False: "round without scores"}
    return {names[scored]: statistics.median(times) for scored, times in seen.items()}
