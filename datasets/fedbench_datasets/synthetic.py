"""Synthetic(alpha, beta), the generated federation of FedProx (Li et al., MLSys 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from fedbench.types import Dataset, Examples

FEATURES, CLASSES = 60, 10
TRAIN_SHARE = 0.9

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

DEVIATIONS: Floats = np.arange(1.0, FEATURES + 1.0, dtype=np.float64) ** -0.6
"""(60,) standard deviation of each feature: the variance of feature j, from 1, is j^-1.2."""


def sizes(clients: int, rng: np.random.RandomState) -> Ints:
    """Draw the number of examples (clients,) of each client: 50 plus a lognormal(4, 2) number."""
    return rng.lognormal(4, 2, clients).astype(np.int64) + 50


def examples(
    n: int, centre: Floats, weight: Floats, bias: Floats, rng: np.random.RandomState
) -> tuple[Floats, Ints]:
    """Draw one client's examples.

    Args:
        n: how many.
        centre: (60,) mean of the inputs.
        weight: (60, 10) of the client's own linear model.
        bias: (10,) of the client's own linear model.
        rng: the stream to draw from.

    Returns:
        inputs (n, 60) and labels (n,), ``argmax(x W + b)``.
    """
    inputs = centre + DEVIATIONS * rng.standard_normal((n, FEATURES))
    return inputs, np.argmax(inputs @ weight + bias, axis=1)


@dataclass(frozen=True, eq=False)
class Synthetic:
    """FedProx's Synthetic(alpha, beta): generated, 60 features, 10 classes, with its own clients.

    Client k labels its inputs by a linear model of its own, ``y = argmax(x W_k + b_k)``. Entries of
    ``W_k`` and ``b_k`` are drawn from N(u_k, 1), ``u_k`` from N(0, alpha); inputs are drawn from
    N(v_k, S) with ``S_jj = j^-1.2``, entries of ``v_k`` from N(B_k, 1) and ``B_k`` from N(0, beta).
    As in the released code, alpha and beta are standard deviations, and client sizes are 50 plus a
    lognormal(4, 2) number. With form ``iid`` all clients share one model, and all inputs have mean
    0. The first 90 % of each client's examples train, the rest test. Inputs are float32 (N, 60).

    By these formulas alpha changes nothing: ``u_k`` adds the same number to the scores of all
    classes, so the labels are those of alpha 0. The clients' models differ at every alpha.
    """

    name: ClassVar[str] = "synthetic"
    size: ClassVar[str] = "as generated"
    card: ClassVar[str] = "synthetic"
    default: ClassVar[bool]
    embedded: ClassVar[bool] = True
    licence: ClassVar[str] = "Apache-2.0"
    source: ClassVar[str] = "generated; Li et al., FedProx, MLSys 2020, section 5.1"
    domains: ClassVar[tuple[str, ...]] = ("synthetic",)
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")

    alpha: Annotated[
        float, Field(ge=0, description="deviation of the models' means; has no effect, see above")
    ] = 1.0
    beta: Annotated[float, Field(ge=0, description="deviation of the inputs' means")] = 1.0
    form: Annotated[
        Literal["clients", "iid"],
        Field(description="iid: one model and one distribution; alpha and beta do not count"),
    ] = "clients"
    clients: Annotated[int, Field(ge=1, le=10_000, description="number of clients")] = 30
    seed: Annotated[
        int, Field(ge=0, lt=2**32, description="of the data; the run's seed does not change them")
    ] = 0

    def load(self, root: Path) -> Dataset:
        """Generate the data; ``root`` is not used."""
        # NumPy promises the numbers of this generator for all versions, but not default_rng's.
        rng = np.random.RandomState(self.seed)
        counts = sizes(self.clients, rng)
        drawn = [
            examples(n, *parts, rng) for n, parts in zip(counts, self._federation(rng), strict=True)
        ]
        train = (TRAIN_SHARE * counts).astype(np.int64)
        tested = np.concatenate([np.arange(n) >= m for n, m in zip(counts, train, strict=True)])
        labels = np.concatenate([labels for _, labels in drawn])
        every = Examples(
            torch.from_numpy(np.concatenate([inputs for inputs, _ in drawn]).astype(np.float32)),
            torch.from_numpy(labels),
            torch.zeros(len(labels), dtype=torch.int64),
            torch.arange(self.clients).repeat_interleave(torch.from_numpy(counts)),
        )
        names = tuple(f"client {k}" for k in range(self.clients))
        test = torch.from_numpy(tested)
        return Dataset(self.classes, self.domains, every[~test], every[test], names)

    def _federation(self, rng: np.random.RandomState) -> list[tuple[Floats, Floats, Floats]]:
        """Draw each client's mean input, weight and bias; see `examples`."""
        if self.form == "iid":
            weight = rng.standard_normal((FEATURES, CLASSES))
            bias = rng.standard_normal(CLASSES)
            return [(np.zeros(FEATURES), weight, bias)] * self.clients
        models = self.alpha * rng.standard_normal(self.clients)
        places = self.beta * rng.standard_normal(self.clients)
        return [
            (
                place + rng.standard_normal(FEATURES),
                model + rng.standard_normal((FEATURES, CLASSES)),
                model + rng.standard_normal(CLASSES),
            )
            for model, place in zip(models, places, strict=True)
        ]
