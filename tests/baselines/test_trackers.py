"""The trackers' files are read back and compared with the rounds."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fedbench_baselines.trackers import scalars

from fedbench import ConfigError, Run, RunConfig
from fedbench.plugins.registry import Registry

RunTiny = Callable[..., Run]

needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="wandb is not installed"
)


def expected(run: Run) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for result in run.history:
        for name, value in scalars(result):
            found.setdefault(name, []).append(value)
    return found


def test_scalars_name_every_number_of_a_round(run_tiny: RunTiny) -> None:
    names = set(expected(run_tiny("fedhpro")))
    assert {
        "classifier/accuracy/mean",
        "classifier/loss/domain/chalk",
        "hyper_prototypes.movement",
        "loss.hpcl",
        "bytes/up/weights",
        "bytes/down/hyper_prototypes",
        "seconds",
    } <= names


def test_what_is_scored_over_clients_and_on_other_data_is_tracked(run_tiny: RunTiny) -> None:
    held = {"test": 0.2, "validation": 0.2}
    extra = {"backdoor": {"clients": 0.5}, "constant": {}}
    run = run_tiny("fedavg", clients=held, extra=extra, rounds=1)
    (result,) = run.history
    names = dict(scalars(result))
    clients = result.client_scores["classifier"]["accuracy"]
    assert names["clients/classifier/accuracy/mean"] == clients.mean
    assert names["clients/classifier/accuracy/worst_tenth"] == clients.worst_tenth
    validation = result.validation
    over = validation.domains["classifier"]["accuracy"]
    assert names["validation/classifier/accuracy/mean"] == over.mean
    assert "validation/clients/classifier/accuracy/plain" in names
    ((name, value),) = result.extra_scores["classifier"]["accuracy"].items()
    assert names[f"extra/classifier/accuracy/{name}"] == value
    assert names["time"] == result.time


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_back_the_rounds(run_tiny: RunTiny, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_tiny("fedavg", tmp_path / "r", rounds=3, extra={"tensorboard": {}})
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    events.Reload()
    wanted = expected(run)
    assert set(events.Tags()["scalars"]) == set(wanted)
    for name, values in wanted.items():
        found = events.Scalars(name)
        assert [e.step for e in found] == [1, 2, 3]
        assert [e.value for e in found] == pytest.approx(values)
    assert len(list((tmp_path / "r" / "tensorboard").iterdir())) == 1


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_back_the_rounds(run_tiny: RunTiny, tmp_path: Path) -> None:
    run = run_tiny("fedavg", tmp_path / "r", rounds=2, extra={"mlflow": {}})
    assert os.environ["MLFLOW_ALLOW_FILE_STORE"] == "true"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "r" / "mlflow").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "fedbench"]
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.data.tags["fedbench.directory"] == str(tmp_path / "r")
    for name, values in expected(run).items():
        history = client.get_metric_history(kept.info.run_id, name)
        assert [(m.step, m.value) for m in history] == [(1, values[0]), (2, values[1])]


@needs_wandb
def test_wandb_reads_back_the_rounds_and_the_config(
    run_tiny: RunTiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wandb_records: Callable[[Path, str], list[Any]],
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")  # offline all the same: no host is given
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    run = run_tiny("fedavg", tmp_path / "r", rounds=2, extra={"wandb": {}})
    (start,) = wandb_records(tmp_path / "r", "run")
    assert (start.project, start.display_name) == ("fedbench", "r")
    config = {item.key: json.loads(item.value_json) for item in start.config.update}
    assert config["rounds"] == 2
    assert config["plugins"]["sgd"] == run.config.plugins["sgd"]
    rounds = wandb_records(tmp_path / "r", "history")
    assert [one.step.num for one in rounds] == [1, 2]
    rows = [{i.nested_key[0]: json.loads(i.value_json) for i in one.item} for one in rounds]
    for name, values in expected(run).items():
        assert [row[name] for row in rows] == values
    (end,) = wandb_records(tmp_path / "r", "exit")
    assert end.exit_code == 0


@needs_wandb
def test_wandb_connects_to_a_host_only_when_the_user_repeats_it(
    registry: Registry, tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    host = "http://127.0.0.1:9"
    config = tiny_config(registry, extra={"wandb": {"host": host}})
    Run(config, tmp_path / "r", registry=registry)
    with pytest.raises(ConfigError, match=rf"add --set wandb.host={host}"):
        Run.resume(tmp_path / "r", registry=registry)


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "wandb"])
def test_trackers_change_no_result(tracker: str, run_tiny: RunTiny, tmp_path: Path) -> None:
    pytest.importorskip(tracker, exc_type=ImportError)
    plain = run_tiny("fedavg").result()
    tracked = run_tiny("fedavg", tmp_path / "r", extra={tracker: {}}).result()
    assert tracked["weights_sha256"] == plain["weights_sha256"]
    assert tracked["metrics_sha256"] == plain["metrics_sha256"]


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow"])
def test_a_tracker_without_its_package_or_directory_says_so(
    tracker: str, run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(tracker):
        with pytest.raises(ConfigError, match=f"{tracker} needs a run directory"):
            run_tiny("fedavg", extra={tracker: {}})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install 'fedbench-toolkit\[{tracker}\]'"):
        run_tiny("fedavg", extra={tracker: {}})
