"""Every hook says when it runs and what it may return; its example does what it says."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fedbench import ConfigError, FedbenchError, Payload, Run, hookspecs, testing
from fedbench.cli.hooks import EXAMPLES
from fedbench.config import resolve as config
from fedbench.config.cards import load_card
from fedbench.plugins.rules import RUN_HOOKS, marked
from fedbench.study import reproductions
from fedbench.types import sha256

DISCOVERY = tuple(n for n in vars(hookspecs.DiscoveryHooks) if n.startswith("register_"))


def load(hook: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{hook}", EXAMPLES / f"{hook}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plugin(hook: str) -> type:
    """The example's class, the only one that implements the hook."""
    classes = [c for c in vars(load(hook)).values() if inspect.isclass(c) and hook in marked(c)]
    assert len(classes) == 1
    return classes[0]


@pytest.mark.parametrize("hook", [*RUN_HOOKS, *DISCOVERY])
def test_the_docstring_says_when_it_runs_and_what_it_may_return(hook):
    group = hookspecs.RunHooks if hook in RUN_HOOKS else hookspecs.DiscoveryHooks
    text = inspect.getdoc(getattr(group, hook)) or ""
    assert re.fullmatch(r"[A-Z].*?\.\n\nWhen: \S.*\nReturns: \S.*", text, re.DOTALL)


def test_every_hook_has_an_example_and_a_check_and_nothing_else_has():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*RUN_HOOKS, *DISCOVERY}
    assert set(RUN_CHECKS) == set(RUN_HOOKS)
    assert set(PACKAGE_CHECKS) == set(DISCOVERY)


RUN_CHECKS: dict[str, Callable[..., None]] = {}
PACKAGE_CHECKS: dict[str, Callable[..., None]] = {}


def check(function: Callable[..., None]) -> Callable[..., None]:
    """Keep a function as the check of the hook that it is named after."""
    name = function.__name__
    (RUN_CHECKS if name in RUN_HOOKS else PACKAGE_CHECKS)[name] = function
    return function


@pytest.fixture
def with_example(add, run_tiny) -> Callable[..., Run]:
    """Run FedAvg on tiny data with a hook's example as one more plugin."""

    def run(hook: str, options: Mapping[str, Any] | None = None, **given: Any) -> Run:
        add(example=plugin(hook))
        extra = {"example": dict(options or {}), **given.pop("others", {})}
        return run_tiny("fedavg", extra=extra, **given)

    return run


@pytest.mark.parametrize("hook", RUN_HOOKS)
def test_the_example_of_a_run_hook_does_what_it_says(hook, with_example, run_tiny, tmp_path):
    RUN_CHECKS[hook](with_example, run_tiny, tmp_path)


@check
def prepare_data(with_example, run_tiny, folder):
    sizes = [len(run.runtime.data.train) for run in (with_example("prepare_data"), run_tiny())]
    assert 2 * sizes[0] == sizes[1]


@check
def partition(with_example, run_tiny, folder):
    run = with_example("partition", {"clients": 5}, without=["domains"])
    assert len(run.runtime.parts) == 5
    assert run.runtime.parts[1].tolist()[:3] == [1, 6, 11]
    assert sorted(torch.cat(run.runtime.parts).tolist()) == list(range(len(run.runtime.data.train)))


@check
def client_data(with_example, run_tiny, folder):
    run, plain = with_example("client_data", {"clients": 2}), run_tiny()
    for client in range(4):
        seen = run.runtime.client_data(client).inputs
        before = plain.runtime.client_data(client).inputs
        assert torch.equal(seen, 255 - before if client < 2 else before)


@check
def run_start(with_example, run_tiny, folder):
    assert len(with_example("run_start", {"least": 18}).history) == 2
    with pytest.raises(ConfigError, match=r"^client 0 has 18 examples; at least 19 are needed$"):
        run_tiny(extra={"example": {"least": 19}})


@check
def init_server(with_example, run_tiny, folder):
    run = with_example("init_server", rounds=3, others={"uniform": {"fraction": 0.5}})
    turns = [sum(c in r.clients for r in run.history) for c in range(4)]
    assert run.state.entries.tensor("turns.count").tolist() == turns
    assert sum(turns) == 6


@check
def select_clients(with_example, run_tiny, folder):
    run = with_example("select_clients", rounds=3, without=["uniform"])
    assert [list(r.clients) for r in run.history] == [[0, 1], [2, 3], [0, 1]]


@check
def schedule(with_example, run_tiny, folder):
    run = with_example("schedule", {"share": 0.5}, others={"two_class": {"slow": 0.5}}, rounds=1)
    (one,) = run.history
    ends = {turn.client: (turn.outcome, turn.end) for turn in one.turns}
    used = [end for outcome, end in ends.values() if outcome == "used"]
    assert len(ends) == 4
    assert len(used) == 2
    assert all(outcome == "dropped" for outcome, end in ends.values() if end > max(used))
    assert one.time == max(used)


@check
def broadcast(with_example, run_tiny, folder):
    run = with_example("broadcast")
    assert [r.bytes_down["fading.strength"] for r in run.history] == [16, 16]  # 4 clients x fp32
    terms = [r.metrics["loss.fading"] for r in run.history]
    assert terms[0] > terms[1] > 0


@check
def transform(with_example, run_tiny, folder):
    silent = with_example("transform", {"deviation": 0.0})
    noisy = run_tiny("fedavg", extra={"example": {"deviation": 0.5}})
    plain = run_tiny()
    assert sha256(silent.state.weights) == sha256(plain.state.weights)
    assert sha256(noisy.state.weights) != sha256(plain.state.weights)


@check
def client_update(with_example, run_tiny, folder):
    run, plain = with_example("client_update"), run_tiny()
    assert run.history[0].metrics["distance"] > 0
    assert sha256(run.state.weights) == sha256(plain.state.weights)


@check
def local_loss(with_example, run_tiny, folder):
    run = with_example("local_loss", {"weight": 1.0})
    light = run_tiny("fedavg", extra={"example": {"weight": 0.0}})
    assert light.history[0].metrics["loss.small_features"] == 0
    assert run.history[0].metrics["loss.small_features"] > 0
    assert sha256(light.state.weights) == sha256(run_tiny().state.weights)
    assert sha256(run.state.weights) != sha256(light.state.weights)


@check
def after_backward(with_example, run_tiny, folder):
    def moved(run: Run) -> float:
        pairs = ((run.state.weights[k], run.runtime.initial[k]) for k in ("hidden.weight",))
        return sum(float((new - old).norm()) for new, old in pairs)

    sgd = {"sgd": {"momentum": 0.0, "weight_decay": 0.0}}
    tight = with_example("after_backward", {"norm": 1e-3}, others=sgd, rounds=1)
    steps = 3  # batches of 8 from a client's 18 examples
    assert 0 < moved(tight) <= steps * 0.05 * 1e-3 * 1.001 < moved(run_tiny(rounds=1))


@check
def aggregate(with_example, run_tiny, folder):
    run = with_example("aggregate", without=["mean"])
    assert [one.metrics["middle.clients"] for one in run.history] == [4, 4]
    weights = [torch.tensor([c, 2.0 - c]) for c in (0.0, 5.0, 1.0)]
    results = [testing.client_result(uploads={"weights": {"w": w}}) for w in weights]
    update = plugin("aggregate")().aggregate(results=iter(results))
    assert update.weights["w"].tolist() == [1.0, 1.0]


@check
def server_update(with_example, run_tiny, folder):
    run = with_example("server_update", {"decay": 0.5}, rounds=1)
    new, old = run.state.weights["classifier.weight"], run.runtime.initial["classifier.weight"]
    torch.testing.assert_close(run.state.entries.tensor("moving_average"), (new + old) / 2)
    assert run.history[0].metrics["from_average"] == pytest.approx(float((new - old).norm() / 2))


@check
def inference(with_example, run_tiny, folder):
    run = with_example("inference", accuracy={"inference": "cosine"})
    assert set(run.history[0].scores) == {"classifier", "cosine"}
    means = [r.scores["cosine"]["accuracy"].mean for r in run.history]
    assert run.accuracy().mean == pytest.approx(sum(means) / 2)  # last_k, of two rounds
    assert run.result()["accuracy"]["inference"] == "cosine"


@check
def send_broadcast(with_example, run_tiny, folder):
    run, plain = with_example("send_broadcast", rounds=1), run_tiny(rounds=1)
    counts = {k: w for k, w in run.runtime.initial.items() if not w.is_floating_point()}
    rest = 4 * sum(w.numel() * w.element_size() for w in counts.values())  # 4 clients
    down = [r.history[0].bytes_down["weights"] - rest for r in (run, plain)]
    assert 2 * down[0] == down[1]
    assert run.state.weights["hidden.weight"].dtype == torch.float32
    assert sha256(run.state.weights) != sha256(plain.state.weights)


@check
def receive_broadcast(with_example, run_tiny, folder):
    first = with_example("receive_broadcast", rounds=1)  # a client has no weights of its own yet
    second = run_tiny(rounds=2, extra={"example": {}})
    for run, rounds, same in ((first, 1, True), (second, 2, False)):
        plain = run_tiny(rounds=rounds)
        assert (sha256(run.state.weights) == sha256(plain.state.weights)) is same


@check
def train(with_example, run_tiny, folder):
    flat = {"lr": 0.001, "epochs": 1, "batch_size": 32}  # one step of 18 examples
    run = with_example("train", flat, without=["sgd"], rounds=1)
    for name in ("hidden.weight", "classifier.weight"):
        moved = (run.state.weights[name] - run.runtime.initial[name]).abs()
        assert 0 < float(moved.max()) <= 0.001 * 1.001


@check
def duration(with_example, run_tiny, folder):
    run = with_example("duration", {"speed": 2.0})
    assert [one.time for one in run.history] == [9.0, 18.0]  # 18 examples, one epoch
    assert sha256(run.state.weights) == sha256(run_tiny().state.weights)


@check
def send_uploads(with_example, run_tiny, folder):
    run = with_example("send_uploads", {"bound": 0.001}, rounds=1)
    wide, plain = run_tiny(rounds=1, extra={"example": {"bound": 1e6}}), run_tiny(rounds=1)
    name = "classifier.weight"
    initial = run.runtime.initial[name]
    changes = [(r.state.weights[name] - initial).abs().max().item() for r in (run, plain)]
    assert changes[0] <= 0.001 * 1.001 < changes[1]
    torch.testing.assert_close(wide.state.weights[name], plain.state.weights[name])


@check
def receive_uploads(with_example, run_tiny, folder):
    run, plain = with_example("receive_uploads", {"bound": 1e6}), run_tiny()
    assert sha256(run.state.weights) == sha256(plain.state.weights)
    sent = Payload({"weights": {"w": torch.zeros(2)}}, "the broadcast")
    results = [
        replace(testing.client_result(client=c, uploads={"weights": {"w": w}}), sent=sent)
        for c, w in enumerate((torch.tensor([0.0, -0.5]), torch.tensor([0.0, 0.6])))
    ]
    left = plugin("receive_uploads")(0.5).receive_uploads(results=iter(results))
    assert [result.client for result in left] == [0]


@check
def personalize(with_example, run_tiny, folder):
    own, plain = with_example("personalize"), run_tiny()
    assert sha256(own.state.weights) == sha256(plain.state.weights)
    losses = [r.history[-1].scores["classifier"]["loss"].mean for r in (own, plain)]
    assert losses[0] != losses[1]
    assert own.result()["accuracy"]["model"] == "personal"


@check
def round_end(with_example, run_tiny, folder):
    run = with_example("round_end", directory=folder / "run", rounds=2)
    lines = (folder / "run" / "accuracy.csv").read_text().splitlines()
    means = [r.scores["classifier"]["accuracy"].mean for r in run.history]
    assert lines == [f"{n},{mean}" for n, mean in enumerate(means, start=1)]


@check
def conclude(with_example, run_tiny, folder):
    drops = {"others": {"faults": {"drop": 0.5}}, "failures": {"policy": "skip"}}
    run = with_example("conclude", rounds=2, **drops)
    lost = run.summary().failures["lost"]
    assert lost
    assert run.summary().conclusions == [f"{lost} turns of clients were lost"]


@check
def run_end(with_example, run_tiny, folder):
    with_example("run_end", directory=folder / "good", rounds=1)
    assert (folder / "good" / "status.txt").read_text() == "finished"
    with pytest.raises(FedbenchError) as caught:
        run_tiny(directory=folder / "bad", extra={"example": {}, "sgd": {"lr": 1e30}}, rounds=5)
    text = " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert (folder / "bad" / "status.txt").read_text() == f"failed: {text}"


@pytest.mark.parametrize("hook", DISCOVERY)
def test_the_example_of_a_package_does_what_it_says(hook, registry, run_tiny, tiny_config, capsys):
    before = {key: len(found) for key, found in registry.entries.items()}
    module = load(hook)
    registry.add(module, "example", api_required=True)
    new = {key for key, found in registry.entries.items() if len(found) > before.get(key, 0)}
    kind = hook.removeprefix("register_").removesuffix("s")
    assert {k for k, _ in new} == {kind}
    PACKAGE_CHECKS[hook](registry, run_tiny, capsys)


@check
def register_plugins(registry, run_tiny, capsys):
    run_tiny("fedavg", extra={"loud": {}})
    assert capsys.readouterr().out == "round 1 is over\nround 2 is over\n"


@check
def register_datasets(registry, run_tiny, capsys):
    from fedbench.config.construct import build

    data = build(registry, "dataset", {"name": "clouds", "examples": 10}).load(Path())
    assert data.classes == ("low", "high")
    assert data.domains == ("clean", "noisy")
    assert data.train.inputs.shape == (20, 2)
    assert data.test.domains.bincount().tolist() == [20, 20]


@check
def register_models(registry, run_tiny, capsys):
    run = run_tiny("fedavg", model={"name": "perceptron", "feature_size": 4})
    assert run.state.weights["hidden.weight"].shape == (4, 64)
    assert run.state.weights["classifier.weight"].shape == (3, 4)


@check
def register_metrics(registry, run_tiny, capsys):
    run = run_tiny("fedavg", metrics={"accuracy": {}, "balanced": {}})
    scores = run.history[-1].scores["classifier"]
    # The tiny test data have as many examples of each class, so the two must agree.
    assert scores["balanced"].mean == pytest.approx(scores["accuracy"].mean)
    metric = registry.get("metric", "balanced").value()
    guess = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    assert metric(guess, torch.tensor([0, 0, 0, 1])) == 0.5


@check
def register_executors(registry, run_tiny, capsys):
    run, plain = run_tiny("fedavg", executor="backwards"), run_tiny()
    assert run.result()["metrics_sha256"] == plain.result()["metrics_sha256"]
    assert sha256(run.state.weights) == sha256(plain.state.weights)


@check
def register_recipes(registry, run_tiny, capsys):
    run = run_tiny("fedavg-smooth")
    assert run.config.plugins["cross_entropy"]["label_smoothing"] == 0.1


@check
def register_cards(registry, run_tiny, capsys):
    card = load_card(registry, "digits-skewed")
    assert card.config["plugins"]["dirichlet"]["alpha"] == 0.3
    assert set(card.reasons) >= {"data", "model", "rounds", *card.config["plugins"]}
    found = config.resolve(registry, "fedavg", card="digits-skewed")
    assert (found.rounds, found.data_name) == (10, "digits")


@check
def register_reproductions(registry, run_tiny, capsys):
    found, (part,) = reproductions.load(registry, "digits-table-1")
    assert found.rule.allowed(0.3) == 0.02
    jobs = reproductions.planned(registry, part, Path("nowhere"))
    assert [(job.method, job.config.seed) for job in jobs][:2] == [("fedavg", 0), ("fedprox", 0)]
    assert reproductions.estimate(part, jobs).rounds == 8
