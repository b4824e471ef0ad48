"""Note how a run ended."""

from dataclasses import dataclass
from pathlib import Path

from fedbench import RunStatus, hookimpl


@dataclass(frozen=True, eq=False)
class Ending:
    """Write the status of the run, and its error if it failed, to ``status.txt``."""

    @hookimpl
    def run_end(self, status: RunStatus, error: str | None, directory: Path | None) -> None:
        if directory is not None:
            (directory / "status.txt").write_text(f"{status}: {error}" if error else status)
