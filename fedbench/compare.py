"""A grid of runs: methods x settings x seeds, planned from names or YAML, run in processes.

A run is keyed by the hash of its resolved config, so what is finished is reused, and adding a
method or a seed runs only what is new. Every run has a lock file: two comparisons in one folder
wait for each other's runs instead of repeating or corrupting them.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field

from . import config as configs
from . import options, records, yamlfile
from .config import RunConfig
from .errors import ConfigError, did_you_mean
from .files import write_atomic
from .plugins import Registry

LOG = "run.log"
ERROR = "error.txt"
PARENT = "FEDBENCH_PARENT"
"""Environment variable with the id of a process that a run must not outlive."""


@dataclass(frozen=True, eq=False)
class Grid:
    """What to compare: the product of methods, settings and seeds."""

    methods: Annotated[
        list[str],
        Field(min_length=1, description="fedavg, fedhpro:-hpal, fedhpro:hpcl.temperature=0.1"),
    ]
    data: Annotated[list[str], Field(description="data sets; default the default one")] = field(
        default_factory=list
    )
    cards: Annotated[list[str], Field(description="cards; default each data set's own")] = field(
        default_factory=list
    )
    partitions: Annotated[
        list[dict[str, dict[str, Any] | None]],
        Field(description="partition plugins with options, instead of the card's"),
    ] = field(default_factory=list)
    seeds: Annotated[int | list[int], Field(description="how many seeds from 0, or which ones")] = 3
    options: Annotated[
        dict[str, list[Any]], Field(description="dotted key -> values to try, as in --set")
    ] = field(default_factory=dict)
    set: Annotated[list[str], Field(description="KEY=VALUE for every run, as in --set")] = field(
        default_factory=list
    )
    rounds: Annotated[int | None, Field(ge=1, description="rounds of every run")] = None
    device: Annotated[str | None, Field(description="device of every run")] = None
    reference: Annotated[str | None, Field(description="default the last method")] = None
    test: Annotated[Literal["t", "wilcoxon"], Field(description="the paired test")] = "t"

    def __post_init__(self) -> None:
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ValueError("seeds must be at least 1")
        if self.reference is not None and self.reference not in self.methods:
            known = did_you_mean(self.reference, self.methods)
            raise ValueError(f"the reference {self.reference!r} is not among the methods{known}")


def load_grid(path: Path, changes: Mapping[str, Any]) -> Grid:
    """Read a grid from a YAML file; ``changes`` win over it.

    Raises:
        ConfigError: naming file, line and key.
    """
    document = yamlfile.read(path)
    return options.build(Grid, {**document.data, **changes}, document.where)


@dataclass(frozen=True)
class Job:
    """One run of a comparison: its config, what the user called it, and its directory."""

    config: RunConfig
    method: str
    path: Path
    also: tuple[str, ...] = ()
    """Other names that the user gave the same run."""


def parse_method(text: str) -> tuple[str, list[str], list[str]]:
    """Split ``fedhpro:-hpal:hpcl.temperature=0.1`` into method, plugins to drop, values to set.

    Raises:
        ConfigError: for a part that is neither ``-PLUGIN`` nor ``KEY=VALUE``.
    """
    method, *parts = text.split(":")
    for part in parts:
        if not (part.startswith("-") or "=" in part) or len(part) < 2:
            raise ConfigError(f"{text}: {part!r} must be -PLUGIN or KEY=VALUE")
    without = [part[1:] for part in parts if part.startswith("-")]
    return method, without, [part for part in parts if not part.startswith("-")]


def plan(registry: Registry, grid: Grid, folder: Path) -> list[Job]:
    """Resolve every run of the grid, seed by seed, so that early results are already paired.

    Raises:
        ConfigError: for a name or value that any run could not use.
    """
    seeds = range(grid.seeds) if isinstance(grid.seeds, int) else grid.seeds
    choices = [[f"{key}={value}" for value in values] for key, values in grid.options.items()]
    names: list[str | None] = [*grid.data] or [None]
    cards: list[str | None] = [*grid.cards] or [None]
    partitions: list[dict[str, dict[str, Any] | None] | None] = [*grid.partitions] or [None]
    settings = itertools.product(names, cards, partitions)
    jobs: dict[str, Job] = {}
    for (data, card, partition), extra in itertools.product(settings, itertools.product(*choices)):
        for seed, method in itertools.product(seeds, grid.methods):
            name, without, sets = parse_method(method)
            flags = {"data": data, "rounds": grid.rounds, "seed": seed, "device": grid.device}
            given = {
                "card": card,
                "sets": [*grid.set, *map(str, extra), *sets],
                "flags": flags,
            }
            config = configs.resolve(registry, name, without=without, **given)
            if partition is not None:
                config = _with_partition(registry, config, partition)
            job = Job(config, method, run_path(folder, method, config))
            same = jobs.setdefault(config.hash, job)
            if method not in (same.method, *same.also):
                jobs[config.hash] = replace(same, also=(*same.also, method))
    return list(jobs.values())


def run_path(folder: Path, method: str, config: RunConfig) -> Path:
    """Return where a run is kept: a readable name and the head of its config's hash."""
    slug = re.sub(r"[^A-Za-z0-9.=_-]+", "_", f"{config.data_name}-{method}")[:80]
    return folder / "runs" / f"{slug}-s{config.seed}-{config.hash[:12]}"


def _with_partition(
    registry: Registry, config: RunConfig, partition: Mapping[str, Any]
) -> RunConfig:
    """Put partition plugins in the place of those that the run has."""
    data = config.to_dict()
    old = [n for n in data["plugins"] if "partition" in registry.get("plugin", n).hooks]
    rest = {name: given for name, given in data["plugins"].items() if name not in old}
    data["plugins"] = {**{name: given or {} for name, given in partition.items()}, **rest}
    return configs.resolve(registry, file=yamlfile.Document(data, "partitions"))


@dataclass
class Progress:
    """What a comparison is doing, for whoever shows it."""

    total: int
    done: int = 0
    reused: int = 0
    failed: int = 0
    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Run -> (rounds done, rounds in all)."""


def execute(
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    retry: bool = False,
    data_root: Path | None = None,
    words: Sequence[str] = (),
    show: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Run what is not finished yet, each run in a process of its own, ``workers`` at a time.

    A run that fails leaves ``error.txt`` and is not tried again unless ``retry``. On an interrupt
    the processes are stopped, and what was under way goes on from its checkpoint next time.
    ``words`` are flags for every ``fedbench run``.

    Returns:
        the final counts.
    """
    progress = Progress(len(jobs))
    more = [*words, *(["--data-root", str(data_root)] if data_root else [])]
    waiting = deque(jobs)
    lock = threading.Lock()
    stop = threading.Event()

    def update(**changes: int) -> None:
        with lock:
            for name, change in changes.items():
                setattr(progress, name, getattr(progress, name) + change)
            show(progress)

    def worker() -> None:
        while not stop.is_set():
            with lock:
                if not waiting:
                    return
                job = waiting.popleft()
            job.path.parent.mkdir(parents=True, exist_ok=True)
            claim = FileLock(job.path.parent / f".{job.path.name}.lock")
            try:
                with claim.acquire(timeout=0):
                    update(**_one(job, workers, retry, more, progress, lambda: update(), stop))
            except Timeout:  # another comparison is at it: look again later
                with lock:
                    waiting.append(job)
                stop.wait(1.0)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as threads:
        futures = [threads.submit(worker) for _ in range(max(1, workers))]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            raise
    return progress


def _one(
    job: Job,
    workers: int,
    retry: bool,
    words: Sequence[str],
    progress: Progress,
    tick: Callable[[], None],
    stop: threading.Event,
) -> dict[str, int]:
    if (job.path / "result.json").is_file():
        return {"done": 1, "reused": 1}
    if (job.path / ERROR).is_file() and not retry:
        return {"done": 1, "failed": 1}
    if (job.path / ERROR).is_file():
        shutil.rmtree(job.path)
    file = job.path.parent / f".{job.path.name}.yaml"
    write_atomic(file, job.config.to_yaml().encode())
    command = [sys.executable, "-m", "fedbench", "run", str(file), "--out", str(job.path)]
    command += ["--quiet", *words]
    if workers > 1:  # the cores are taken by runs; results do not depend on the executor
        command += ["--executor", "inline"]
    log = job.path.parent / f".{job.path.name}.log"
    key = job.path.name
    with log.open("wb") as output:
        # In a group of its own, so that Ctrl-C on a terminal reaches it once, from us; and it ends
        # when this process does, whatever ends it.
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, PARENT: str(os.getpid())},
            process_group=0,
        )
        try:
            while process.poll() is None:
                progress.running[key] = (_rounds(job.path), job.config.rounds)
                tick()
                if stop.wait(0.5):
                    break
        finally:
            progress.running.pop(key, None)
            _end(process)
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    log.unlink()
    file.unlink()
    if process.returncode == 0:
        return {"done": 1}
    if stop.is_set():
        return {}
    job.path.mkdir(parents=True, exist_ok=True)
    if not (job.path / "config.yaml").is_file():
        write_atomic(job.path / "config.yaml", job.config.to_yaml().encode())
    last = text.splitlines()[-1] if text else f"ended with status {process.returncode}"
    write_atomic(job.path / LOG, text.encode())
    write_atomic(job.path / ERROR, last.removeprefix("Error: ").encode())
    return {"done": 1, "failed": 1}


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()  # it writes a checkpoint before it ends
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _rounds(path: Path) -> int:
    with suppress(OSError):
        return (path / "rounds.jsonl").read_bytes().count(b"\n")
    return 0


def labels(registry: Registry, jobs: Sequence[Job]) -> dict[str, str]:
    """Return, for each method as the user wrote it, the variant's name in the report.

    With several settings of a method it is that of the first one.
    """
    names: dict[str, str] = {}
    for job in jobs:
        for method in (job.method, *job.also):
            names.setdefault(method, records.variant_of(registry, job.config))
    return names


def collect(registry: Registry, jobs: Sequence[Job]) -> list[records.Record]:
    """Read the runs of a plan; one that has not begun is left out."""
    return [records.read(registry, j.path) for j in jobs if (j.path / "config.yaml").is_file()]
