"""A package with one run plugin."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedbench import RoundResult, hookimpl

fedbench_api = 1


@dataclass(frozen=True, eq=False)
class Loud:
    """Print every round's number."""

    @hookimpl
    def round_end(self, result: RoundResult) -> None:
        print(f"round {result.round} is over")


@hookimpl
def register_plugins() -> Mapping[str, type]:
    return {"loud": Loud}
