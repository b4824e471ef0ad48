"""The clients' own models at the end of a run: ``personal/client-00007.safetensors`` and so on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..types import Weights, sha256
from .files import write_atomic


def write(folder: Path, models: Iterable[tuple[int, Weights]]) -> str:
    """Write each client's model; return a SHA-256 over all of them.

    Args:
        folder: where to; it is made.
        models: (client id, its model), one at a time.
    """
    from safetensors.torch import save

    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256()
    for client, weights in models:
        plain = {name: value.contiguous() for name, value in weights.items()}
        digest.update(f"{client} {sha256(dict(weights))}\n".encode())
        write_atomic(folder / f"client-{client:05}.safetensors", save(plain))
    return digest.hexdigest()
