"""Named random streams: every number depends on (seed, round, client, purpose) and nothing else.

A stream's purpose is a name, so adding a plugin, a client or a round never changes another stream:
ablations and compared methods share partitions, initial weights, client sampling and batch order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

ANY = -1
"""Round or client of a stream that belongs to no single round or client."""


@dataclass(frozen=True)
class Streams:
    """The random streams of one run.

    Args:
        seed: the run's seed, any int.
    """

    seed: int

    def key(self, purpose: str, round: int = ANY, client: int = ANY) -> int:
        """Return the stream's 128-bit key, the start of a SHA-256 over the seed and arguments."""
        name = f"{self.seed}/{round}/{client}/{purpose}".encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:16], "little")

    def numpy(self, purpose: str, round: int = ANY, client: int = ANY) -> np.random.Generator:
        """Return a fresh NumPy generator at the start of the named stream (Philox, 128-bit key)."""
        return np.random.Generator(np.random.Philox(key=self.key(purpose, round, client)))

    def torch(self, purpose: str, round: int = ANY, client: int = ANY) -> torch.Generator:
        """Return a fresh CPU torch generator at the start of the named stream.

        It is on the CPU so that a run draws the same numbers on every device.
        """
        generator = torch.Generator()
        generator.manual_seed(self.key(purpose, round, client) % 2**63)
        return generator

    @contextmanager
    def scope(self, purpose: str, round: int = ANY, client: int = ANY) -> Iterator[None]:
        """Seed torch's global generators within a block and restore them after it.

        This is for code that does not accept a generator: weight initialisation, dropout.
        """
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=devices):
            # Same numbers, but torch.manual_seed formats stack traces: milliseconds per call.
            seed = torch.manual_seed if devices else torch.default_generator.manual_seed
            seed(self.key(purpose, round, client) % 2**63)
            yield
