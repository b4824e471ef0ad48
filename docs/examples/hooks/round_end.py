"""Write one line of CSV a round."""

from dataclasses import dataclass
from pathlib import Path

from fedbench import RoundResult, hookimpl


@dataclass(frozen=True, eq=False)
class Csv:
    """Append round and mean accuracy to ``accuracy.csv`` in the run's directory."""

    @hookimpl
    def round_end(self, result: RoundResult, directory: Path | None) -> None:
        if directory is None:
            return
        mean = result.scores["classifier"]["accuracy"].mean
        with (directory / "accuracy.csv").open("a") as file:
            file.write(f"{result.round},{mean}\n")
