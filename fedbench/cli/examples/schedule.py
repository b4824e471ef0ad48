"""Don't wait for the slowest clients."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedbench import ServerContext, hookimpl
from fedbench.turns import Pace


@dataclass(frozen=True, eq=False)
class FirstOnes:
    """End the round when a share of its clients has answered, and drop the others."""

    share: Annotated[float, Field(gt=0, le=1, description="share of the round's clients")] = 0.5

    @hookimpl
    def schedule(self, ctx: ServerContext) -> Pace:
        return Pace(results=max(1, round(self.share * len(ctx.cohort))))
