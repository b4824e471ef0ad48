"""Norm clipping: no client's update is longer than a bound, so that none outweighs the others.

Sun, Kairouz, Suresh, McMahan: Can You Really Backdoor Federated Learning?, 2019 (arXiv); the same
step bounds the sensitivity in DP-FedAvg (McMahan, Ramage, Talwar, Zhang: Learning Differentially
Private Recurrent Language Models, ICLR 2018). The papers were not re-read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedbench import ClientResult, Search, ServerState, ServerUpdate, Weights, hookimpl

from .fedavg import weighted_mean
from .robust import ONE_MEAN, ROLE, moved, received
from .vectors import difference, squared_norm


def clip(update: Weights, bound: float) -> Weights:
    """Return ``D * min(1, bound / ||D||)``; the norm is over all tensors together, in float64.

    An update within the bound, 0 included, keeps its bits. The norm of a clipped one is the bound
    up to the rounding of its type.

    Args:
        update: D, the difference to the received weights, floating-point tensors by name.
        bound: S >= 0.
    """
    norm = math.sqrt(squared_norm(update))
    factor = 1.0 if norm <= bound else bound / norm
    return {k: d * factor for k, d in update.items()}


@dataclass(frozen=True, eq=False)
class NormClip:
    """Average the clients' weights after shortening updates that are longer than a bound.

    The norm is over floating-point parameters and buffers. Clients are read one by one, so the
    memory does not grow with their number. The metric ``norm_clip.clipped`` is the share of the
    round's clients whose update was shortened, ``norm_clip.norm`` the mean norm before that.
    """

    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    conflicts: ClassVar[Mapping[str, str]] = ONE_MEAN

    bound: Annotated[
        float,
        Field(gt=0, description="the largest norm of an update, to be tuned per model"),
        Search(low=0.1, high=10.0, scale="log"),
    ] = 1.0
    weights: Annotated[
        Literal["examples", "uniform"],
        Field(description="what a client counts: as many examples as it says, or all alike"),
    ] = "examples"

    @hookimpl
    def aggregate(self, state: ServerState, results: Iterator[ClientResult]) -> ServerUpdate:
        norms: list[float] = []

        def clipped() -> Iterator[tuple[Weights, float]]:
            for result in results:
                weights, base = result.uploads.weights(), received(state, result)
                floats = {name: w for name, w in weights.items() if w.is_floating_point()}
                update = difference(floats, base)
                norms.append(math.sqrt(squared_norm(update)))
                new = {
                    name: d.to(floats[name].dtype)
                    for name, d in moved(base, clip(update, self.bound)).items()
                }
                yield {**weights, **new}, result.examples if self.weights == "examples" else 1

        mean = weighted_mean(clipped())
        metrics = {
            "norm_clip.clipped": sum(norm > self.bound for norm in norms) / len(norms),
            "norm_clip.norm": math.fsum(norms) / len(norms),
        }
        return ServerUpdate(weights=mean, metrics=metrics)
