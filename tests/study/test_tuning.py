"""A tuning with real runs on tiny data, in this process: what it sees, spends, keeps and reuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest

from fedbench import ConfigError
from fedbench.engine.run import Run
from fedbench.plugins.registry import Registry
from fedbench.runtime import Runtime
from fedbench.store.contents import Interrupted
from fedbench.store.directory import RunDirectory
from fedbench.study import comparison, tuning_runs
from fedbench.study.comparison import How
from fedbench.study.execute import Progress
from fedbench.study.grid import Job
from fedbench.study.records import Record, read
from fedbench.study.tuning import Tuning, tune
from fedbench.study.tuning_plan import Plan, plan, wanted
from fedbench.study.tuning_runs import Stopped


class Machine:
    """Carries out runs in this process, as `execute` does in others; keeps a list of them."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.made: list[Path] = []
        self.order = 1
        self.until: Callable[[Path], None] = lambda path: None

    def __call__(self, jobs: Sequence[Job], **more: Any) -> Progress:
        done = Progress(len(jobs))
        for job in list(jobs)[:: self.order]:
            directory = RunDirectory(job.path)
            if directory.finished or directory.failed:
                done.reused += 1
            else:
                self.until(job.path)
                self.made.append(job.path)
                try:
                    self._run(job, more.get("words", ()))
                except ConfigError:
                    raise
                except Exception as error:
                    directory.fail(job.config, str(error), "")
                    done.failed += 1
            done.done += 1
        return done

    def _run(self, job: Job, words: Sequence[str]) -> None:
        """Run a job, or a part of it, as ``fedbench run FILE --out DIR WORDS`` does."""
        given = job.path, job.config
        started = RunDirectory(job.path).exists
        run = (
            Run.resume(*given, registry=self.registry)
            if started
            else Run(*given[::-1], registry=self.registry)
        )
        end = int(words[words.index("--until") + 1]) if "--until" in words else job.config.rounds
        with closing(run.rounds()) as rounds:
            for result in rounds:
                if end <= result.round < job.config.rounds:
                    return


@pytest.fixture
def machine(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(registry)
    monkeypatch.setattr(comparison, "execute", machine)
    return machine


def make_plan(registry: Registry, tiny_config, folder: Path, *methods: str, **given: Any) -> Plan:
    """Plan a tuning of methods on the tiny data; they are YAML files, as it has no card."""
    files = []
    for method in methods or ("fedavg", "fedprox"):
        files.append(folder / f"{method}.yaml")
        files[-1].write_text(tiny_config(registry, method, rounds=2).to_yaml())
    words = {"methods": tuple(map(str, files)), "trials": 4, "batch": 2, "seeds": 1, **given}
    return plan(registry, wanted(words))


@pytest.fixture
def planned(registry: Registry, tiny_config, tmp_path: Path) -> Callable[..., Plan]:
    return partial(make_plan, registry, tiny_config, tmp_path)


@pytest.fixture
def tuned(registry: Registry, machine: Machine, tmp_path: Path) -> Callable[..., Tuning]:
    def make(wanted: Plan, folder: str = "tuning", **how: Any) -> Tuning:
        return tune(registry, wanted, tmp_path / folder, How(trust_old=True, **how))

    return make


@pytest.fixture(scope="module")
def done(
    installed: Registry, tiny_config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tuning, Path]:
    """Two methods, four trials each, compared under two seeds; and the folder."""
    folder = tmp_path_factory.mktemp("tuning")
    wanted = make_plan(installed, tiny_config, folder, seeds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "execute", Machine(installed))
        return tune(installed, wanted, folder, How(trust_old=True)), folder


def runs_of(registry: Registry, folder: Path) -> dict[tuple[float, float | None], Record]:
    """Return the runs of the search by their learning rate and FedProx's mu."""
    found = [read(registry, path) for path in (folder / "search" / "runs").iterdir()]
    return {
        (one.config.plugins["sgd"]["lr"], one.config.plugins.get("fedprox", {}).get("mu")): one
        for one in found
    }


def test_search_and_comparison_share_nothing_but_the_protocol(done) -> None:
    tuning, _ = done
    assert (tuning.plan.search_seeds, tuning.plan.seeds) == ((0,), (1, 2))
    (group,) = tuning.outcome.analysis.groups
    assert group.setting["accuracy"]["split"] == "test"
    assert group.setting["clients"]["validation"] == 0.1
    assert {record.seed for record in group.records} == {1, 2}
    for one in tuning.methods:
        assert [trial.status for trial in one.trials] == ["complete"] * 4
        assert one.spent == tuning.plan.budget.total == 8


def test_a_trial_is_scored_on_validation_data_by_the_run_s_own_rule(done, installed) -> None:
    tuning, folder = done
    runs = runs_of(installed, folder)
    assert len(runs) == 8
    config = tuning.plan.configs[tuning.methods[0].method]
    held = sum(map(len, Runtime(config, installed, folder).held.held["validation"]))
    for one in tuning.methods:
        assert one.examples == held
        for trial in one.trials:
            run = runs[trial.values["sgd.lr"], trial.values.get("fedprox.mu")]
            assert run.config.accuracy.split == "validation"
            assert run.config.clients.validation == 0.1
            rounds = [r.validation.domains["classifier"]["accuracy"].mean for r in run.rounds]
            assert trial.score == pytest.approx(fmean(rounds))  # of both rounds, by the rule
            tests = [r.scores["classifier"]["accuracy"].mean for r in run.rounds]
            assert one.test[trial.number] == pytest.approx(fmean(tests))


def test_the_best_values_are_compared_and_scored_under_fresh_seeds(done) -> None:
    tuning, _ = done
    (group,) = tuning.outcome.analysis.groups
    for one in tuning.methods:
        assert one.best.score == max(trial.score for trial in one.trials)
        mine = [
            record
            for record in group.records
            if record.config.plugins["sgd"]["lr"] == one.best.values["sgd.lr"]
            and ("fedprox" in record.config.plugins) == ("fedprox.mu" in one.spaces)
        ]
        assert one.fresh["test"] == {r.seed: r.result.accuracy.mean for r in mine}
        assert set(one.fresh["validation"]) == {1, 2}


def test_optuna_s_file_has_the_trials(done) -> None:
    tuning, folder = done
    storage = f"sqlite:///{folder}/search/trials.db"
    assert len(optuna.get_all_study_names(storage)) == 2
    for one in tuning.methods:
        study = optuna.load_study(study_name=tuning.plan.name(one.method, {}), storage=storage)
        assert [trial.value for trial in study.trials] == [trial.score for trial in one.trials]
        assert study.best_trial.number == one.best.number


def test_the_search_looks_at_no_test_score(planned, tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = tuning_runs.views, []

    def views(rounds, rule):
        assert rule.split == "validation"
        return real(rounds, rule)

    def over(plan, runs, search, fixed):
        seen.append(search)
        raise ZeroDivisionError

    monkeypatch.setattr(tuning_runs, "views", views)
    monkeypatch.setattr("fedbench.study.tuning._tuned", over)
    with pytest.raises(ZeroDivisionError):
        tuned(planned("fedavg"))
    assert len(seen[0].trials) == 4


@pytest.mark.long
def test_an_interrupted_search_makes_no_run_twice(planned, tuned, machine) -> None:
    whole = tuned(planned("fedprox"), "whole")
    expected = [path.name for path in machine.made]
    machine.made = []

    def interrupt(path: Path) -> None:
        if len(machine.made) == 3:
            machine.until = lambda path: None
            raise KeyboardInterrupt

    machine.until = interrupt
    with pytest.raises(KeyboardInterrupt):
        tuned(planned("fedprox"), "cut")
    assert len(machine.made) == 3
    cut = tuned(planned("fedprox"), "cut")
    assert [path.name for path in machine.made] == expected
    assert [one.trials for one in cut.methods] == [one.trials for one in whole.methods]
    assert [one.best for one in cut.methods] == [one.best for one in whole.methods]
    machine.made = []
    tuned(planned("fedprox"), "cut")
    assert machine.made == []


def test_the_order_in_which_runs_end_does_not_matter(planned, tuned, machine) -> None:
    one = tuned(planned("fedprox"), "one")
    machine.order = -1
    other = tuned(planned("fedprox"), "other")
    assert [m.trials for m in one.methods] == [m.trials for m in other.methods]


def test_a_trial_is_the_mean_over_its_seeds(planned, tuned) -> None:
    alone = {
        seed: tuned(planned("fedavg", search_seeds=[seed], trials=1, seeds=[9])) for seed in (3, 4)
    }
    both = tuned(planned("fedavg", search_seeds=[3, 4], trials=1, seeds=[9]))
    scores = [done.methods[0].trials[0].score for done in alone.values()]
    assert both.methods[0].trials[0].score == pytest.approx(fmean(scores))
    assert both.methods[0].spent == 4


@pytest.mark.long
def test_pruned_trials_are_paused_runs_that_a_search_without_pruning_completes(
    planned, tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedbench.study.sampling.STARTUP", 1)
    wanted = planned("fedprox", prune=True, rounds=4)
    pruned = tuned(wanted).methods[0]
    assert {trial.status for trial in pruned.trials} == {"complete", "pruned"}
    assert 12 < pruned.spent <= 16
    assert pruned.spent == sum(max(trial.curve) for trial in pruned.trials)
    whole = tuned(planned("fedprox", rounds=4)).methods[0]
    alone = tuned(planned("fedprox", rounds=4), "alone").methods[0]
    assert whole.trials == alone.trials  # resumed to the bit
    again = tuned(wanted).methods[0]
    assert again.trials == pruned.trials


def test_a_shared_option_is_tuned_on_the_first_method_and_fixed_for_the_others(
    planned, tuned
) -> None:
    done = tuned(planned(shared=("sgd.lr",), trials=5))
    first, second = done.methods
    lr = first.best.values["sgd.lr"]
    assert list(first.spaces) == ["sgd.lr"]
    assert list(second.spaces) == ["fedprox.mu"]
    assert second.shared == {"sgd.lr": lr}
    assert len(second.trials) == 4  # all that there is to try
    assert done.outcome.analysis
    records = done.outcome.analysis.groups[0].records
    assert {record.config.plugins["sgd"]["lr"] for record in records} == {lr}


def test_a_failed_run_is_a_failed_trial(planned, tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Run.rounds

    def rounds(self):
        if self.config.plugins["sgd"]["lr"] < 0.01:
            raise RuntimeError("loss is nan in round 1")
        return real(self)

    monkeypatch.setattr(Run, "rounds", rounds)
    done = tuned(planned("fedavg", trials=8))
    (one,) = done.methods
    failed = [trial for trial in one.trials if trial.values["sgd.lr"] < 0.01]
    assert failed
    assert {trial.error for trial in failed} == {"seed 0: loss is nan in round 1"}
    assert one.best not in failed
    assert one.spent == done.plan.budget.total


def test_runs_that_the_machine_ended_stop_the_search(
    planned, tuned, machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(jobs: Sequence[Job], **more: Any) -> Progress:
        end = Interrupted(1, "ended by SIGKILL")
        return dataclasses.replace(Progress(len(jobs)), interrupted={jobs[0].path: end})

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "execute", ended)
        with pytest.raises(Stopped) as caught:
            tuned(planned(trials=1))
    assert next(iter(caught.value.progress.interrupted.values())).reason == "ended by SIGKILL"
    assert len(tuned(planned(trials=1)).methods) == 2


def test_more_trials_continue_the_search_and_its_record(planned, tuned, tmp_path: Path) -> None:
    done = tuned(planned("fedavg"))
    file = tmp_path / "tuning/search/trials.db"
    storage = f"sqlite:///{file}"
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    assert study.trials[0].value == done.methods[0].trials[0].score
    longer = tuned(planned("fedavg", trials=5))
    assert longer.methods[0].trials[:4] == done.methods[0].trials
    assert longer.outcome.analysis
    assert len(longer.outcome.analysis.groups[0].variants) == 1
    assert optuna.get_all_study_names(storage) == [name]
    assert len(optuna.load_study(study_name=name, storage=storage).trials) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"search_seeds": [0, 1], "seeds": [1, 2]}, "seed 1 is one of the search; .* 2 and more"),
        ({"reference": "fedporx"}, "reference 'fedporx' is not among the methods"),
        ({"shared": ["sgd.momentum"]}, "--shared sgd.momentum: it is not searched for"),
        (
            {"methods": ["fedprox", "fedavg"], "shared": ["fedprox.mu"]},
            r"--shared fedprox\.mu: it is not searched for fedavg",
        ),
        (
            {"methods": ["fedavg", "fedprox:sgd.lr=0.05"], "shared": ["sgd.lr"]},
            r"--shared sgd\.lr: it is not searched for fedprox:sgd\.lr=0\.05",
        ),
        ({"set_space": ["sgd.momentun=uniform:0:1"]}, "unknown option 'momentun' .*'momentum'"),
        ({"set": ["sgd.lr=0.1"], "set_space": ["sgd.lr=log:0.1:1"]}, "sgd.lr is set, so it"),
        ({"set": ["stop_at=0.9"]}, r"scores after all rounds, so stop_at=0\.9 cannot end"),
        ({"trials": 0}, "trials: input should be greater than or equal to 1"),
        ({"seeds": 0}, "seeds: give at least one seed"),
        ({"sampler": "cmaes"}, "sampler: input should be 'tpe', 'random' or 'grid'"),
    ],
)
def test_what_cannot_be_tuned_is_refused(planned, given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(**given)


def test_methods_of_different_settings_are_not_tuned_together(
    registry, planned, tiny_config, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"differs from .* in rounds"):
        planned(methods=two_rounds(registry, tiny_config, tmp_path))


def two_rounds(registry, tiny_config, folder: Path) -> tuple[str, ...]:
    files = []
    for rounds in (2, 3):
        files.append(folder / f"{rounds}.yaml")
        files[-1].write_text(tiny_config(registry, "fedavg", rounds=rounds).to_yaml())
    return tuple(map(str, files))


def test_a_share_of_the_card_or_the_user_is_kept(planned) -> None:
    assert planned().share == 0.1
    assert not planned().given
    own = planned(set=["clients.validation=0.3"])
    assert (own.share, own.given) == (0.3, True)
    assert {config.clients.validation for config in own.configs.values()} == {0.3}
