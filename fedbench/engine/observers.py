"""Observers: plugins that are called when a run starts, after each round, and when it ends."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ..ambient import settled
from ..errors import FedbenchError, PluginError
from ..plugins.hooks import RunPlugins
from ..runtime import Runtime
from ..text import summary
from ..types import RoundResult, RunStatus


class Observers:
    """The plugins of a run that observe it.

    Args:
        runtime: the run's plugins, clients and model.
        directory: the run directory; ``None`` for a run that keeps nothing.
    """

    def __init__(self, runtime: Runtime, directory: Path | None) -> None:
        self._runtime, self._directory = runtime, directory

    def start(self, history: Sequence[RoundResult]) -> None:
        """Call ``run_start``: each may look at the run, after the rounds ``history``, or refuse it.

        Raises:
            Exception: any error of a plugin.
        """
        runtime = self._runtime
        with settled(), runtime.streams.scope("run_start"):
            for _, call in runtime.plugins.calls("run_start"):
                call(
                    ctx=runtime.server_context(len(history)),
                    model=runtime.model,
                    inputs=runtime.example(),
                    history=tuple(history),
                    directory=self._directory,
                )

    def round(self, result: RoundResult) -> None:
        """Call ``round_end`` with a finished round.

        Raises:
            Exception: any error of a plugin.
        """
        for _, call in self._runtime.plugins.calls("round_end"):
            call(result=result, directory=self._directory)

    def end(self, error: BaseException | None) -> None:
        """Call ``run_end`` of every observer.

        An observer's own error must neither hide ``error`` nor lose a result: it becomes a note of
        ``error``, or a warning.

        Args:
            error: what ended the run; ``None`` for a finished run.
        """
        status = _status(error)
        text = _text(error) if status == "failed" and error else None
        for name, call in self._runtime.plugins.calls("run_end"):
            try:
                call(status=status, error=text, directory=self._directory)
            except Exception as own:
                note = f"(plugin {name!r}, run_end: {type(own).__name__}: {own})"
                if status == "failed" and error:
                    error.add_note(note)
                else:
                    warnings.warn(f"the run is {status} {note}", RuntimeWarning, stacklevel=2)


def conclusions(plugins: RunPlugins, history: Sequence[RoundResult]) -> list[str]:
    """Call ``conclude`` of every plugin, and return what they say about a run.

    Raises:
        PluginError: for what is not a list of texts.
    """
    said: list[str] = []
    for name, call in plugins.calls("conclude"):
        found = call(history=tuple(history))
        if isinstance(found, str) or not all(isinstance(line, str) for line in found):
            raise PluginError(f"plugin {name!r}: conclude must return texts, got {found!r}")
        said += found
    return said


def _status(error: BaseException | None) -> RunStatus:
    if error is None:
        return "finished"
    # Interrupted: Ctrl-C, SIGTERM, sys.exit, or a caller that left the loop over the rounds.
    return "failed" if isinstance(error, Exception) else "interrupted"


def _text(error: BaseException) -> str:
    """Return an error and its notes as one line."""
    text = str(error) if isinstance(error, FedbenchError) else f"{type(error).__name__}: {error}"
    return " ".join([summary(text), *getattr(error, "__notes__", [])])
