"""Carry out one run with its progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import yamlfile
from ..config.changes import describe_changes
from ..config.kept import resolve_kept
from ..config.model import Clients, RunConfig
from ..engine.run import Run
from ..engine.start import start
from ..errors import temporary
from ..plugins.registry import Registry
from ..splits import SPLITS, HeldOut
from ..store.directory import RunDirectory
from ..text import echo
from .progress import progress

if TYPE_CHECKING:
    pass


def run_config(
    registry: Registry,
    config: RunConfig,
    out: Path | None,
    *,
    quiet: bool,
    until: int | None = None,
    keep_empty: bool = False,
    **keeping: Any,
) -> Path:
    """Carry out the run of a config, or resume it.

    Args:
        registry: what is installed.
        config: the config.
        out: the run directory; default the first free name in ``runs/``.
        quiet: whether to show no progress.
        until: pause after the first round from this one on, with a checkpoint.
        keep_empty: whether a new run that ends with an error before its first round leaves a
            directory, in which there is nothing to resume.
        keeping: ``data_root``, and flags of ``fedbench run`` that say what is kept.

    Returns:
        the run directory.
    """
    job, resumed = start(registry, config, out, **_of_run(**keeping))
    assert job.directory
    if resumed and not quiet:
        echo(f"Resuming {job.directory.path} after round {len(job.history)}")
    try:
        return _carry_out(job, quiet, until)
    except Exception as error:
        if not (job.history or resumed or temporary(error) or keep_empty):
            job.directory.discard()
        raise


def resume_run(
    registry: Registry,
    directory: Path,
    executor: str | None,
    workers: int | None,
    sets: Sequence[str],
    *,
    quiet: bool,
    **keeping: Any,
) -> Path:
    """Carry out the rest of an unfinished run, and return its directory.

    The arguments are those of ``fedbench resume``.
    """
    found, config = RunDirectory.open(directory), None
    if not found.finished:
        given = {"name": executor, "workers": workers}
        given = {key: value for key, value in given.items() if value is not None}
        kept = yamlfile.read(found.config_file)
        config = resolve_kept(registry, kept, executor=given, sets=sets)
    job = Run.resume(directory, config, registry=registry, **_of_run(**keeping))
    return _carry_out(job, quiet)


def _of_run(*, checkpoint_minutes: float, **more: Any) -> dict[str, Any]:
    return {"checkpoint_seconds": 60 * checkpoint_minutes, **more}


def _carry_out(job: Run, quiet: bool, until: int | None = None) -> Path:
    """Play the rounds of a run while showing its progress.

    Raises:
        KeyboardInterrupt: with a note that says how to continue.
    """
    assert job.directory
    changes = [] if quiet else describe_changes(job.registry, job.config)
    show = progress(job.registry, job.config, changes, quiet=quiet)
    job.progress = show.client
    first = len(job.history)
    try:
        with show, closing(job.rounds()) as rounds:
            for result in rounds:
                if len(job.history) == first + 1 and not quiet:
                    for line in too_small(job.runtime.held, job.config.clients):
                        echo(line)
                show.round(result)
                if until is not None and until <= result.round < job.config.rounds:
                    break
    except KeyboardInterrupt as error:
        error.add_note(_interrupted(job.directory.path, job.config, len(job.history)))
        raise
    return job.directory.path


def _interrupted(path: Path, config: RunConfig, done: int) -> str:
    how = f"`fedbench show {path}` prints them, `fedbench resume {path}` resumes."
    if config.in_memory:
        how = f"fedbench.resume({str(path)!r}, plugins=...) resumes, in Python."
    return f"Interrupted after {done} of {config.rounds} rounds; they are in {path}. {how}"


def too_small(held: HeldOut, rule: Clients) -> Iterator[str]:
    """Yield one line per share for which some clients are too small."""
    for split in SPLITS:
        if clients := held.too_small(split):
            names = ", ".join(map(str, clients[:10]))
            more = f" and {len(clients) - 10} more" if len(clients) > 10 else ""
            yield (
                f"clients.{split}={getattr(rule, split):g} is no example for {len(clients)} of "
                f"{len(held.train)} clients, which have no {split} score: {names}{more}"
            )
