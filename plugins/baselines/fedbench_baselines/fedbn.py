"""FedBN: every client keeps its own batch normalisation; the rest of the model is averaged.

Li, Jiang, Zhang, Kamp, Dou: FedBN: Federated Learning on Non-IID Features via Local Batch
Normalization, ICLR 2021.

All of batch norm is local: weight, bias, running statistics and the batch counter, as in the
released code. That code looks for "bn" in a parameter's name, which misses batch norm with another
name, such as the one in a ResNet's shortcut; here the module's type decides. Group norm and layer
norm have no statistics of the data and are averaged.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


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
