"""Give every client the same speed: a clock."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedbench import hookimpl
from fedbench.turns import Effort


@dataclass(frozen=True, eq=False)
class OneSpeed:
    """Let a turn take a second for every ``speed`` examples that it trains on."""

    speed: Annotated[float, Field(gt=0, description="examples per virtual second")] = 100.0

    @hookimpl
    def duration(self, effort: Effort) -> float:
        return effort.examples / self.speed
