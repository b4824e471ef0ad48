"""When a run writes checkpoints, and what must be true of the state that goes into one."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..store import checkpoint, digests
from ..store.client_states import ClientStates
from ..store.directory import RunDirectory
from ..types import ServerState


class Saving:
    """Writes the checkpoints of one run.

    Args:
        seconds: a checkpoint is due when the last one is this old.
        rounds: one is also due after this many rounds; ``None`` for time alone.
        keep: whether every checkpoint stays, see `fedbench.store.checkpoint`.
    """

    def __init__(self, seconds: float, rounds: int | None, keep: bool) -> None:
        self._seconds, self._rounds, self._keep = seconds, rounds, keep
        self.begin(0)

    def begin(self, number: int) -> None:
        """Count time and rounds from now, after round ``number``, of which nothing is lost."""
        self._at, self._round = time.monotonic(), number

    def due(self, number: int) -> bool:
        """Return whether to write a checkpoint after round ``number``."""
        if self._rounds and number - self._round >= self._rounds:
            return True
        return time.monotonic() - self._at >= self._seconds

    def lacks(self, number: int) -> bool:
        """Return whether round ``number`` would be lost without another checkpoint."""
        return number > self._round

    def write(
        self,
        directory: RunDirectory,
        config_hash: str,
        state: ServerState,
        owners: Mapping[str, str],
        clients: ClientStates,
    ) -> None:
        """Write a checkpoint of the state after a round."""
        clients.commit(state.round)
        checkpoint.write(directory.path, config_hash, state, owners, clients, self._keep)
        self.begin(state.round)


def intact(state: ServerState, line: Mapping[str, object]) -> bool:
    """Return whether the state still is that of the round of which ``line`` holds the digests.

    A round that ends early must leave the state before it as it was.
    """
    return line["server"] == digests.of_state(state)


SPOILT = (
    "no checkpoint of round {} was written: a plugin has written into the server's weights or "
    "entries, which it must leave as they are"
)
