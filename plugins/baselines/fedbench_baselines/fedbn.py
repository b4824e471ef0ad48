"""FedBN: every client keeps its own batch normalisation; the rest of the model is averaged.

Li, Jiang, Zhang, Kamp, Dou: FedBN: Federated Learning on Non-IID Features via Local Batch
Normalization, ICLR 2021.

All of batch norm is local: weight, bias, running statistics and the batch counter, as in the
released code. That code looks for "bn" in a parameter's name, which misses batch norm with another
name, such as the one in a ResNet's shortcut; here the module's type decides. Group norm and layer
norm have no statistics of the data and are averaged. The mean over clients is plain in the released
code (``weights: uniform``), which trains one epoch with a learning rate of 0.01 and batches of 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedbench import ConfigError, hookimpl

from .personal_parts import Kept


def norm_keys(model: nn.Module) -> frozenset[str]:
    """Return the ``state_dict`` names of everything that belongs to batch norm.

    A module that is in the model under several names counts under each of them. Without batch norm,
    the set is empty.
    """
    return frozenset(
        key
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, _BatchNorm)
        for key in module.state_dict(prefix=f"{name}." if name else "")
    )


@dataclass(frozen=True, eq=False)
class FedBn(Kept):
    """Keep batch norm with the client, its statistics included, and average the rest.

    The test data of a domain without a client is scored with the global model, whose batch norm has
    its initial weights and statistics.
    """

    key: ClassVar[str] = "fedbn.norm"

    def part(self, model: nn.Module) -> frozenset[str]:
        """Return the ``state_dict`` names of batch norm."""
        return norm_keys(model)

    @hookimpl
    def run_start(self, model: nn.Module) -> None:
        if not norm_keys(model):
            raise ConfigError(
                "plugin 'fedbn': the model has no batch norm, so nothing would stay with the "
                "clients; use one that has it, such as resnet10, or method fedavg"
            )
