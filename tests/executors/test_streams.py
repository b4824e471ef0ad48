"""A pool starts its workers also where there is no standard output or error to flush."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from fedbench import Run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool forks")


@pytest.mark.parametrize("broken", [False, True], ids=["no streams", "a pipe nobody reads"])
def test_workers_start_without_streams_to_flush(
    broken: bool, run_tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", closefd=False) if broken else None
    if stream:
        stream.write("not flushed")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", None)
        result = run_tiny("fedavg", executor={"name": "pool", "workers": 2}).result()
    os.close(writer)
    assert result == run_tiny("fedavg").result() | {"seconds": result["seconds"]}
    if stream:
        with pytest.raises(OSError, match="Bad file descriptor"):
            stream.close()
