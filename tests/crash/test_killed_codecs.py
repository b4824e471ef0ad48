"""kill -9 while clients keep what top-k did not send: the resumed run ends with the same bits."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedbench import Run
from fedbench.plugins.registry import Registry

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, reads /proc")


@pytest.mark.parametrize("point", ["a client ends 5", "states are committed 2"])
def test_residuals_survive(
    point: str,
    installed: Registry,
    tiny_config: Callable[..., Any],
    fork: Callable[..., Any],
    points: Any,
    tmp_path: Path,
) -> None:
    extra = {"uniform": {"fraction": 0.75}, "topk": {}, "qsgd": {}}
    config = tiny_config(installed, "fedavg", rounds=3, extra=extra)
    whole = Run(config, tmp_path / "whole", registry=installed).run()
    file, run = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text(config.to_yaml())
    words = ["run", file, "--out", run, "--checkpoint-rounds", 1]
    killed = fork(words, lambda: points().set(point)).wait()
    assert killed.status == -signal.SIGKILL, killed
    done = fork(["resume", run]).wait()
    assert done.status == 0, done
    found = json.loads((run / "result.json").read_text())
    for key in ("weights_sha256", "metrics_sha256"):
        assert found[key] == whole[key]
