"""Say how many turns of clients were lost."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedbench import RoundResult, hookimpl


@dataclass(frozen=True, eq=False)
class Lost:
    """State with the result how many clients did not answer in all."""

    @hookimpl
    def conclude(self, history: Sequence[RoundResult]) -> Sequence[str]:
        lost = sum(failure.lost for result in history for failure in result.failures)
        return [f"{lost} turns of clients were lost"]
