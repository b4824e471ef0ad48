"""FedBABU: only the feature extractor is trained; the classifier keeps its random initial values.

Oh, Kim, Yun: FedBABU: Toward Enhanced Representation for Federated Image Classification, ICLR 2022.
The settings are those of the released code; the paper was not re-read.

The classifier is the same random one on every client in all rounds, so it need not travel. Before
its scores, a client trains the whole model for 5 more epochs: the plugin `fine_tuning`. Without
that, the global model with the random classifier can be used as it is. Each is a recipe:
``fedbabu`` and ``fedbabu-global``. The code takes the plain mean of the clients' extractors
(``weights: uniform``). In the paper the trainer's learning rate is 0.1 and its momentum 0.9 (from
memory); the code's defaults are 0.01 and 0.5, without weight decay. Here the run's trainer decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedbench import ClientContext, hookimpl

from .personal_parts import LeftOut, is_body


@dataclass(frozen=True, eq=False)
class FedBabu(LeftOut):
    """Train everything but the classifier, which keeps its initial values and never travels."""

    @hookimpl
    def client_update(self, ctx: ClientContext) -> bool:
        ctx.train(only=is_body)
        return True
