"""Write one line of CSV per round."""

from dataclasses import dataclass
from pathlib import Path

from fedbench import RoundResult, hookimpl


@dataclass(frozen=True, eq=False)
class Csv:
    """Append the round and its mean accuracy to ``accuracy.csv`` in the run directory."""

    @hookimpl
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        if directory is None:
            return
        mean = result.scores["classifier"]["accuracy"].mean
        with (directory / "accuracy.csv").open("a") as file:
            file.write(f"{result.round},{mean}\n")
