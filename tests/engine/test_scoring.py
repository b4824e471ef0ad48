"""What is scored after a round, on whose data and with whose model, and what of it is kept."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbench import ConfigError, PluginError, Run, hookimpl
from fedbench.config.model import RunConfig
from fedbench.engine.totals import canonical_round
from fedbench.executors.inline import InlineWorkers
from fedbench.plugins.registry import Registry
from fedbench.store.client_states import ClientStates
from fedbench.store.directory import RunDirectory
from fedbench.types import SplitScores, sha256

HELD = {"clients": {"test": 0.25, "validation": 0.25}}
EXECUTORS = [
    {"name": "inline"},
    pytest.param(
        {"name": "pool", "workers": 2},
        marks=pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool forks"),
    ),
]


@dataclass(frozen=True, eq=False)
class Tunes:
    """The client's model: the global one, after a pass of its own on the classifier."""

    @hookimpl
    def personalize(self, ctx):
        ctx.train(only=lambda name: name.startswith("classifier."), stream="tunes")
        ctx.state["tunes"] = torch.ones(1)
        ctx.metric("tunes", 1.0)


def accuracy(result: Any) -> dict[str, Any]:
    return result.scores["classifier"]["accuracy"].domains


def test_a_round_of_old_has_its_old_form(run_tiny: Callable[..., Run]) -> None:
    """Without held-out data, what is hashed has no key that is new, whatever was timed."""
    (result,) = run_tiny(rounds=1).history
    assert (result.client_scores, result.validation) == ({}, SplitScores())
    assert (result.personal_seconds, result.personal_bytes) == (0.0, {})
    assert set(json.loads(canonical_round(result))) == {
        *("round", "clients", "scores", "metrics", "bytes_up", "bytes_down")
    }


def test_times_and_bytes_of_personal_models_are_never_hashed(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    add(tunes=Tunes)
    (result,) = run_tiny(rounds=1, extra={"tunes": {}}, **HELD).history
    assert result.personal_seconds > 0
    assert result.personal_bytes == result.bytes_down, "each client would get the global weights"
    assert set(json.loads(canonical_round(result))) >= {"client_scores", "validation"}
    assert "personal" not in canonical_round(result)


def test_clients_and_domains_are_scored_on_both_splits_and_read_back(
    run_tiny: Callable[..., Run], tmp_path: Path
) -> None:
    run = run_tiny(rounds=1, directory=tmp_path / "r", **HELD)
    (result,) = run.history
    sizes = {c: len(part) for c, part in enumerate(run.runtime.held.held["test"])}
    found = result.client_scores["classifier"]["accuracy"]
    assert set(found.clients) == set(sizes) == {0, 1, 2, 3}
    weighted = sum(found.clients[c] * sizes[c] for c in sizes) / sum(sizes.values())
    assert found.mean == pytest.approx(weighted)
    assert set(result.validation.domains["classifier"]["accuracy"].domains) == {"ink", "chalk"}
    assert set(result.validation.clients["classifier"]["accuracy"].clients) == {0, 1, 2, 3}
    assert "class_accuracy" not in result.client_scores["classifier"]
    assert RunDirectory(tmp_path / "r").read_rounds() == run.history


def test_a_global_model_is_scored_by_hand_on_a_clients_own_data(
    run_tiny: Callable[..., Run],
) -> None:
    run = run_tiny(rounds=1, **HELD)
    runtime, (result,) = run.runtime, run.history
    runtime.model.load_state_dict(dict(run.state.weights))
    runtime.model.eval()
    for client, members in enumerate(runtime.held.held["test"]):
        chosen = runtime.data.train[members]
        with torch.no_grad():
            x = (chosen.inputs.float() / 255 - 0.5) / 0.5
            scores = runtime.model.classifier(runtime.model.features(x))
        right = float((scores.argmax(1) == chosen.labels).double().mean())
        assert result.client_scores["classifier"]["accuracy"].clients[client] == right
        assert not set(members.tolist()) & set(runtime.held.train[client].tolist())


def test_own_models_are_scored_on_domains_unless_the_global_one_is_asked_for(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    add(tunes=Tunes)
    plain = run_tiny(rounds=1)
    found = {
        model: run_tiny(rounds=1, extra={"tunes": {}}, accuracy={"model": model})
        for model in ("auto", "personal", "global")
    }
    scores = {model: run.history[0].scores for model, run in found.items()}
    assert scores["global"] == plain.history[0].scores
    assert scores["auto"] == scores["personal"] != scores["global"]
    whose = {model: run.result()["accuracy"]["model"] for model, run in found.items()}
    assert whose == {"auto": "personal", "personal": "personal", "global": "global"}


def test_scoring_changes_no_later_round_and_no_clients_state(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    add(tunes=Tunes)
    plain = run_tiny("moon", rounds=3)
    tuned = run_tiny("moon", rounds=3, extra={"tunes": {}})
    assert tuned.result()["weights_sha256"] == plain.result()["weights_sha256"]
    for one, other in zip(plain.history, tuned.history, strict=True):
        assert (one.metrics, one.bytes_up, one.bytes_down) == (
            *(other.metrics, other.bytes_up, other.bytes_down),
        )
    for client in range(4):
        assert sha256(plain._clients[client]) == sha256(tuned._clients[client])


@dataclass(frozen=True, eq=False)
class Sends:
    """Uploads where nothing travels."""

    @hookimpl
    def personalize(self, ctx):
        ctx.upload("mine", torch.ones(1))


def test_an_upload_in_personalize_is_an_error(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    add(sends=Sends)
    text = r"^upload of 'mine' in round 1, client 0: nothing travels in personalize$"
    with pytest.raises(PluginError, match=text):
        run_tiny(rounds=1, extra={"sends": {}})


def test_every_so_many_rounds_and_the_last_one_are_scored(run_tiny: Callable[..., Run]) -> None:
    every, some = run_tiny(rounds=5), run_tiny(rounds=5, evaluate_every=2)
    assert [bool(r.scores) for r in some.history] == [False, True, False, True, True]
    for one, other in zip(every.history, some.history, strict=True):
        assert one.metrics == other.metrics
        assert not other.scores or other.scores == one.scores
    assert some.result()["accuracy"]["rule"] == "mean of the last 3 rounds"
    assert some.result()["weights_sha256"] == every.result()["weights_sha256"]


def test_the_result_has_every_population_and_split_and_the_one_asked_for_first(
    run_tiny: Callable[..., Run],
) -> None:
    result = run_tiny(**HELD, accuracy={"population": "clients", "split": "validation"}).result()
    main = result["accuracy"]
    assert (main["population"], main["split"], main["model"]) == ("clients", "validation", "global")
    assert main["rule"].endswith("mean over clients, validation data")
    assert [(o["population"], o["split"]) for o in result["others"]] == [
        *(("domains", "test"), ("clients", "test"), ("domains", "validation")),
    ]


def test_outputs_are_read_by_their_position_whatever_the_order_they_come_in(
    add: Callable[..., None], run_tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some transports sort by name, where 10 comes before 2."""
    monkeypatch.setattr("fedbench.pipeline.EVAL_BATCH", 1)
    add(tunes=Tunes)
    plain = run_tiny(rounds=1, extra={"tunes": {}})
    run = InlineWorkers.run

    def sorted_by_name(self: InlineWorkers, payload: Any, jobs: Any) -> Any:
        for answer in run(self, payload, jobs):
            yield answer.with_uploads(dict(sorted(answer.uploads.items())))

    monkeypatch.setattr(InlineWorkers, "run", sorted_by_name)
    assert run_tiny(rounds=1, extra={"tunes": {}}).history[0].scores == plain.history[0].scores


def test_states_in_files_are_in_memory_for_one_client_at_a_time(
    registry: Registry, tiny_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: set[int] = set()
    most: list[int] = []
    read = ClientStates._read

    def watched(self: ClientStates, name: str) -> Any:
        found = read(self, name)
        number = len(most)
        weakref.finalize(found["personal.weights"]["classifier.weight"], alive.discard, number)
        alive.add(number)
        most.append(len(alive))
        return found

    monkeypatch.setattr(ClientStates, "_read", watched)
    config = tiny_config(registry, "fedproto-aaai", rounds=3)
    run = Run(config, registry=registry)
    run._clients = ClientStates(limit=0)
    run.run()
    assert len(most) >= 5 * len(run.runtime.parts), "turns in two rounds, scores in three"
    assert max(most) <= 2, "the one that is read, and the one before it"


# --- the same bits everywhere --------------------------------------------------------------------


def personal(registry: Registry, tiny_config: Callable[..., RunConfig], **given: Any) -> RunConfig:
    return tiny_config(registry, "fedproto-aaai", rounds=3, extra={"tunes": {}}, **HELD, **given)


@pytest.mark.parametrize("executor", EXECUTORS, ids=str)
def test_own_models_have_the_same_bits_in_every_executor_and_when_resumed(
    add: Callable[..., None],
    registry: Registry,
    tiny_config: Callable[..., RunConfig],
    tmp_path: Path,
    executor: dict[str, Any],
) -> None:
    add(tunes=Tunes)
    plain = Run(
        personal(registry, tiny_config), tmp_path / "a", registry=registry, keep_personal=True
    ).run()
    config = personal(registry, tiny_config, executor=executor)
    stopped = Run(config, tmp_path / "b", registry=registry).rounds()
    next(stopped)
    stopped.close()
    resumed = Run.resume(tmp_path / "b", registry=registry, keep_personal=True).run()
    for key in ("weights_sha256", "metrics_sha256", "personal_sha256", "accuracy", "others"):
        assert resumed[key] == plain[key]
    assert len(plain["personal_sha256"]) == 64
    files = [sorted((tmp_path / name / "personal").iterdir()) for name in "ab"]
    assert [f.name for f in files[0]] == [f"client-{c:05}.safetensors" for c in range(4)]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_own_models_are_kept_only_where_a_plugin_makes_them(
    registry: Registry, tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    run = Run(tiny_config(registry), tmp_path / "r", registry=registry, keep_personal=True)
    with pytest.raises(ConfigError, match="no plugin of this run makes any"):
        run.run()
