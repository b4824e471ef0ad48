"""Limit how far a client's weights may move away from the received ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedbench import ClientContext, Payload, Value, hookimpl


@dataclass(frozen=True, eq=False)
class Clamp:
    """Clamp every entry of a client's update to ``[-bound, bound]``."""

    bound: Annotated[float, Field(gt=0, description="largest change of a weight")] = 0.01

    @hookimpl
    def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Mapping[str, Value]:
        sent = {name: w.cpu() for name, w in ctx.sent.weights().items()}
        new = uploads.weights()
        clamped = {
            k: sent[k] + (w - sent[k]).clamp(-self.bound, self.bound) for k, w in new.items()
        }
        return {**uploads, "weights": clamped}
