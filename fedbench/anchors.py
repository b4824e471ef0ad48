"""Class anchors: points in feature space that stand for classes, which clients receive.

Prototypes, cluster centres and hyper-prototypes are class anchors. A plugin's class states under
which keys it broadcasts them (``anchors``, see `fedbench.plugins.facts.PluginFacts`), so that a
diagnostic needs to know no method.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import PluginError
from .values import Payload, PerClass, Value


def class_anchors(payload: Payload, keys: Sequence[str]) -> PerClass | None:
    """Return the class anchors of a broadcast, any number of rows (d,) per class.

    Args:
        payload: what clients receive, decoded.
        keys: where it may hold anchors: a `PerClass` with rows (d,), or a tensor (C, d) or
            (C, M, d) with one or M anchors per class.

    Returns:
        the rows of all keys in order; ``None`` when the payload has none of the keys, as in the
        first rounds of methods that learn their anchors from uploads.

    Raises:
        PluginError: for a value of another form.
    """
    found = [_rows(payload[key], key) for key in keys if key in payload]
    return PerClass.concat(found) if found else None


def _rows(value: Value, key: str) -> PerClass:
    if isinstance(value, PerClass) and value.values.ndim == 2:
        return value
    if isinstance(value, Tensor) and value.ndim in (2, 3):
        each = value.shape[1] if value.ndim == 3 else 1
        classes = torch.arange(len(value), device=value.device)
        labels = classes.repeat_interleave(each)
        return PerClass(labels, value.reshape(len(labels), -1), torch.ones_like(labels))
    raise PluginError(
        f"{key!r} is stated as class anchors, so it must be a PerClass with rows (d,), or a tensor "
        "(C, d) or (C, M, d)"
    )
