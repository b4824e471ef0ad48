"""Send the global weights as 16-bit floats."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fedbench import Encoded, Payload, Value, Weights, hookimpl


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """Return weights with their floating-point tensors in another type."""
    return {k: w.to(dtype) if w.is_floating_point() else w for k, w in weights.items()}


@dataclass(frozen=True, eq=False)
class HalfDown:
    """Halve the bytes of the broadcast weights."""

    @hookimpl
    def send_broadcast(self, payload: Payload) -> Mapping[str, Value]:
        half = cast(payload.weights(), torch.float16)
        return {**payload, "weights": Encoded(half)}

    @hookimpl
    def receive_broadcast(self, payload: Payload) -> Mapping[str, Value]:
        encoded = payload["weights"]
        assert isinstance(encoded, Encoded)
        return {**payload, "weights": cast(encoded.parts, torch.float32)}
