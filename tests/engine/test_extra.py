"""Extra test sets: scored with the global model, reported by name, and part of no mean."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbench.cli.printing import print_result
from fedbench.engine.run import Run
from fedbench.engine.totals import canonical_round
from fedbench.errors import ConfigError
from fedbench.executors.packing import pack_data, unpack_data
from fedbench.hookspecs import hookimpl
from fedbench.report import series
from fedbench.store import reading
from fedbench.store.fingerprint import of_data
from fedbench.testing import tiny_dataset
from fedbench.types import Dataset


@dataclass(frozen=True, eq=False)
class Copies:
    """Add copies of the test data of each domain, and of all of it with wrong labels."""

    keep: int = 24

    @hookimpl
    def prepare_data(self, data: Dataset) -> Dataset:
        test = data.test
        extra = {name: test[test.domains == d] for d, name in enumerate(data.domains)}
        extra["wrong"] = replace(test, labels=(test.labels + 1) % 3)[torch.arange(self.keep)]
        return replace(data, extra=extra)


@pytest.fixture
def with_copies(add: Callable[..., None], run_tiny: Callable[..., Run]) -> Callable[..., Run]:
    add(copies=Copies)
    return lambda **more: run_tiny(extra={"copies": {}}, **more)


def test_an_extra_set_is_scored_as_test_data_would_be(with_copies: Callable[..., Run]) -> None:
    for one in with_copies().history:
        accuracy = one.scores["classifier"]["accuracy"]
        extra = one.extra_scores["classifier"]["accuracy"]
        assert {name: extra[name] for name in accuracy.domains} == accuracy.domains
        assert 0 <= extra["wrong"] <= 1 - min(accuracy.domains.values())  # type: ignore[operator, type-var]


def test_extra_sets_change_no_other_number(
    with_copies: Callable[..., Run], run_tiny: Callable[..., Run]
) -> None:
    plain, more = run_tiny(), with_copies()
    assert not plain.history[0].extra_scores
    for one, other in zip(plain.history, more.history, strict=True):
        assert canonical_round(one) == canonical_round(replace(other, extra_scores={}))
        assert "extra_scores" not in json.loads(canonical_round(one))
    assert plain.summary().accuracy == more.summary().accuracy
    assert plain.summary().weights_sha256 == more.summary().weights_sha256


def test_the_result_has_them_by_the_accuracy_rule(with_copies: Callable[..., Run]) -> None:
    run = with_copies(rounds=3, accuracy={"rule": "last_k", "k": 2})
    last = [one.extra_scores["classifier"]["accuracy"]["wrong"] for one in run.history[1:]]
    assert run.summary().extra["wrong"] == sum(last) / 2  # type: ignore[index, arg-type]


def test_a_kept_run_has_them_and_prints_them(
    with_copies: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_copies(directory=tmp_path / "run")
    kept = reading.rounds(tmp_path / "run" / "rounds.jsonl")
    assert [one.extra_scores for one in kept] == [one.extra_scores for one in run.history]
    value = run.result()["extra"]["wrong"]
    print_result(run.summary(), "percent")
    assert f"accuracy on wrong: {100 * value:.2f}; it enters no mean" in capsys.readouterr().out


def test_a_report_draws_them(with_copies: Callable[..., Run]) -> None:
    one = with_copies().history[0]
    value = one.extra_scores["classifier"]["accuracy"]["wrong"]
    assert series.extra_score("classifier", "accuracy", "wrong")(one) == value
    assert series.extra_score("classifier", "accuracy", "other")(one) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool needs fork")
def test_the_pool_scores_them_too(with_copies: Callable[..., Run]) -> None:
    inline = with_copies()
    pool = with_copies(executor={"name": "pool", "workers": 2})
    assert [*map(canonical_round, inline.history)] == [*map(canonical_round, pool.history)]


def test_an_empty_extra_set_is_refused(
    add: Callable[..., None], run_tiny: Callable[..., Run]
) -> None:
    add(copies=Copies)
    with pytest.raises(ConfigError, match="the extra test set 'wrong' has no examples"):
        run_tiny(extra={"copies": {"keep": 0}})


def test_extra_sets_survive_the_way_to_a_cluster() -> None:
    data = Copies().prepare_data(tiny_dataset())
    found, _ = unpack_data(pack_data(data, [torch.arange(3)]))
    assert list(found.extra) == ["ink", "chalk", "wrong"]
    for name, examples in data.extra.items():
        assert torch.equal(found.extra[name].inputs, examples.inputs)
        assert torch.equal(found.extra[name].labels, examples.labels)


def test_the_fingerprint_of_data_covers_them() -> None:
    data: Any = tiny_dataset()
    more = Copies().prepare_data(data)
    wrong = replace(more, extra={**more.extra, "wrong": more.extra["ink"]})
    assert len({of_data(data), of_data(more), of_data(wrong)}) == 3
