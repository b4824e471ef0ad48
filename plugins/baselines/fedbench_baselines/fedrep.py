"""FedRep: a turn first fits the client's own classifier, then the shared feature extractor.

Collins, Hassani, Mokhtari, Shakkottai: Exploiting Shared Representations for Personalized Federated
Learning, ICML 2021. The settings are those of the released code; the paper was not re-read.

Of a turn's local epochs, the last ``body_epochs`` train the extractor with the classifier still,
and those before train the classifier with the extractor still, batch-norm statistics included. A
trainer that makes one epoch makes one of each. Both phases have the same random batches. Loss terms
are reported for the second one.

The released code trains every client's classifier for 10 more epochs at the end of the run. Here
that happens before every scoring, so that the rounds' scores can be compared; set
``evaluate_every`` to save time. The code's trainer has a learning rate of 0.01, a momentum of 0.5
and a weight decay of 1e-4 on weights alone; here the run's trainer decides. The extractor is
averaged by number of examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fedbench import ClientContext, hookimpl

from .classification import FIXED
from .personal_parts import ROLE, WHY, Kept, is_body, is_head


@dataclass(frozen=True, eq=False)
class FedRep(Kept):
    """Keep the classifier with the client and train it first, then train the rest without it."""

    conflicts: ClassVar[Mapping[str, str]] = {
        ROLE: WHY,
        FIXED: "each turn begins with training the classifier",
    }

    body_epochs: Annotated[
        int,
        Field(
            ge=1,
            description="how many of the local epochs train the feature extractor, the last ones; "
            "1 in the authors' code",
        ),
    ] = 1
    final_epochs: Annotated[
        int,
        Field(
            ge=0,
            description="epochs of the classifier before a client's scores; 10 in the authors' "
            "code, after the last round",
        ),
    ] = 10

    key: ClassVar[str] = "fedrep.classifier"

    @hookimpl
    def client_update(self, ctx: ClientContext) -> bool:
        # What others read of the turn (steps, features, loss) is about the part that is averaged.
        ctx.train(only=is_head, epochs=lambda n: n - self.body_epochs, record=False)
        ctx.train(only=is_body, epochs=self.body_epochs)
        self.keep(ctx)
        return True

    @hookimpl
    def personalize(self, ctx: ClientContext) -> None:
        super().personalize(ctx)
        if self.final_epochs:
            ctx.train(only=is_head, epochs=self.final_epochs, stream="fedrep")
