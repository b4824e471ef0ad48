"""Each rule of the kit catches a plugin that breaks it.

The file has more than 400 lines because every rule needs a plugin that breaks it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench import (
    ClientContext,
    ConfigError,
    Dataset,
    Examples,
    PerClass,
    Recipe,
    ServerUpdate,
    Unit,
    hookimpl,
    testing,
)
from fedbench.executors.inline import InlineWorkers
from fedbench.failures import ClientFailure
from fedbench.types import Received, copy_to

SEEN: list[Any] = []
COUNTS: dict[str, float] = {}

plugin = dataclass(frozen=True, eq=False)
Case = tuple[str, str, type | Recipe, str]
BROKEN: list[Case] = []
"""(rule, kind, what breaks it, what the message must say)."""


def breaks(rule: str, kind: str, text: str) -> Callable[[type], type]:
    def add(cls: type) -> type:
        BROKEN.append((rule, kind, cls, text))
        return cls

    return add


def term(value: Tensor) -> dict[str, Tensor]:
    return {"mine": value}


# What a plugin says about itself


@breaks("docstring", "plugin", "the class has no docstring")
@plugin
class Silent:
    @hookimpl
    def local_loss(self, output: Any) -> Any:
        return term(output.logits.square().mean())


@breaks("source", "plugin", "no year, arXiv id, DOI or link")
@plugin
class Unsourced:
    """Add a term out of thin air."""

    @hookimpl
    def local_loss(self, output: Any) -> Any:
        return term(output.logits.square().mean())


class Options:
    """Implements a hook, so that subclasses only declare options."""

    @hookimpl
    def round_end(self) -> None:
        pass


@breaks("options", "plugin", "it has no description\n  where: option 'weight'")
@plugin
class Undescribed(Options):
    """Has an option nobody explains."""

    weight: Annotated[float, Field(ge=0)] = 1.0


@breaks("options", "plugin", "a number without a bound\n  where: option 'weight'")
@plugin
class Unbounded(Options):
    """Has an option without bounds."""

    weight: Annotated[float, Field(description="a weight")] = 1.0


@breaks("options", "plugin", "its type is Any")
@plugin
class Untyped(Options):
    """Has an option that accepts anything."""

    weight: Annotated[Any, Field(description="a weight")] = 1.0


@breaks("options", "plugin", "its options are refused: weight: input should be greater than")
@plugin
class OutOfBounds(Options):
    """Has a default outside its own bounds."""

    weight: Annotated[float, Field(gt=0, description="a weight")] = 0.0


@breaks("options", "plugin", r"options={...}")
@plugin
class Required(Options):
    """Has an option without a default, which the kit was not given."""

    weight: Annotated[float, Field(gt=0, description="a weight")]


# Rounds


@breaks("smoke-round", "plugin", "ZeroDivisionError: division by zero\n  where: in round 1, client")
@plugin
class Crashes:
    """Divide by nothing."""

    @hookimpl
    def local_loss(self) -> Any:
        return term(torch.tensor(1 / 0))


@breaks("smoke-round", "plugin", "upload 'mine' is a list")
@plugin
class UploadsList:
    """Upload something that is not a tensor."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        ctx.upload("mine", [1, 2])  # type: ignore[arg-type]
        return (yield)


@breaks("same-twice", "plugin", "round 1: metrics.mine is")
@plugin
class GlobalRandom:
    """Report a number from a global generator."""

    @hookimpl
    def server_update(self) -> ServerUpdate:
        return ServerUpdate(metrics={"mine": random.random()})


@breaks("any-order", "plugin", "metrics.mine is")
@plugin
class Predecessor:
    """Report which client had the previous turn."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        ctx.metric("mine", COUNTS.get("client", -1))
        COUNTS["client"] = ctx.client
        return (yield)


@breaks("one-worker", "plugin", "in a pool of 1 worker differs from the plain one")
@plugin
class Smuggles:
    """Bring numbers to the server without uploading them."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        COUNTS["turns"] = ctx.round
        return (yield)

    @hookimpl
    def init_server(self) -> Any:
        COUNTS["turns"] = 0
        return {}

    @hookimpl
    def server_update(self) -> ServerUpdate:
        return ServerUpdate(metrics={"mine": COUNTS["turns"]})


@breaks("two-workers", "plugin", "in a pool of 2 workers differs from the plain one")
@plugin
class CountsTurns:
    """Count the turns of this process."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        if (ctx.round, ctx.client) == (1, 0):
            COUNTS["all"] = 0
        COUNTS["all"] = COUNTS.get("all", 0) + 1
        ctx.metric("mine", COUNTS["all"])
        return (yield)


@plugin
class Remembers:
    """Count rounds in the object."""

    rounds: list[int] = field(default_factory=list, init=False)

    @hookimpl
    def server_update(self) -> ServerUpdate:
        self.rounds.append(1)
        return ServerUpdate(metrics={"mine": len(self.rounds)})


BROKEN += [
    ("resumed", "plugin", Remembers, "round 2: metrics.mine is 2.0 and 1.0"),
    ("failing-client", "plugin", Remembers, "round 2: metrics.mine is 2.0 and 1.0"),
    ("no-hidden-state", "plugin", Remembers, "attribute 'rounds' of the object 'mine' changed"),
]


@breaks("resumed", "plugin", "metrics.mine is 2.0 and")
@plugin
class RemembersElsewhere:
    """Count rounds in another place, and begin again with a run: a resumed one lacks the count."""

    @hookimpl
    def init_server(self) -> dict[str, Tensor]:
        COUNTS["rounds"] = 0
        return {}

    @hookimpl
    def server_update(self) -> ServerUpdate:
        COUNTS["rounds"] = COUNTS.get("rounds", 0) + 1
        return ServerUpdate(metrics={"mine": COUNTS["rounds"]})


@breaks("failing-client", "plugin", "the run continued as if it had not")
@plugin
class Swallows:
    """Catch whatever a client's training raises."""

    @hookimpl(wrapper=True)
    def client_update(self) -> Any:
        try:
            return (yield)
        except Exception:
            return True


@breaks("failing-client", "plugin", "the client's error was lost")
@plugin
class Renames:
    """Replace a client's error with another one."""

    @hookimpl(wrapper=True)
    def client_update(self) -> Any:
        try:
            return (yield)
        except Exception:
            raise ValueError("something went wrong") from None


@breaks("some-clients", "plugin", "with one client per round ended with an error: IndexError")
@plugin
class WantsAll:
    """Look at the last client's report, whether it took part or not."""

    @hookimpl
    def server_update(self, ctx: Any, reports: Any) -> ServerUpdate:
        last = reports[ctx.num_clients - 1]
        return ServerUpdate(metrics={"mine": last.examples})


@breaks("skipped-client", "plugin", "continues without a failing client ended with an error: Index")
@plugin
class WantsSelected:
    """Expect a report from every selected client."""

    @hookimpl
    def server_update(self, ctx: Any, reports: Any) -> ServerUpdate:
        return ServerUpdate(metrics={"mine": reports[ctx.num_clients - 1].examples})


@breaks("one-client", "plugin", "with a single client ended with an error: ZeroDivisionError")
@plugin
class OthersMean:
    """Average over the other clients."""

    @hookimpl
    def server_update(self, ctx: Any, reports: Any) -> ServerUpdate:
        return ServerUpdate(metrics={"mine": sum(ctx.client_sizes) / (ctx.num_clients - 1)})


@breaks("one-class", "plugin", "with one class per client ended with an error")
@plugin
class WantsTwoClasses:
    """Use the distance between two classes, whatever the client holds."""

    @hookimpl
    def local_loss(self, batch: Any, output: Any) -> Any:
        means = PerClass.means(output.features, batch.labels).values
        return term((means[0] - means[1]).square().mean())


@breaks("last-batch-of-one", "plugin", "with batches of one example ended with an error")
@plugin
class Deviation:
    """Keep the standard deviation over the batch small."""

    @hookimpl
    def local_loss(self, output: Any) -> Any:
        return term(output.features.std(dim=0).mean())


@breaks("finite-losses", "plugin", "metric 'mine' is nan in round 1")
@plugin
class ReportsNan:
    """Report NaN."""

    @hookimpl
    def server_update(self) -> ServerUpdate:
        return ServerUpdate(metrics={"mine": float("nan")})


@breaks("finite-losses", "plugin", "no gradient of the loss term 'mine' reaches the model")
@plugin
class Detached:
    """Add a term that trains nothing."""

    @hookimpl
    def local_loss(self, output: Any) -> Any:
        return term(output.features.detach().square().mean())


def uploads(value: Callable[[ClientContext], Any], doc: str) -> type:
    class Uploads:
        @hookimpl(wrapper=True)
        def client_update(self, ctx: ClientContext) -> Any:
            ctx.upload("mine", value(ctx))
            return (yield)

    Uploads.__doc__ = doc
    return plugin(Uploads)


def rows(labels: Tensor, counts: Tensor) -> PerClass:
    return PerClass(labels, torch.ones(len(labels), 2), counts)


ONE = torch.ones(1, dtype=torch.int64)
for value, text in (
    (lambda ctx: torch.tensor([torch.nan]), "'mine' is not finite in round 1, client 0"),
    (lambda ctx: rows(ONE.float(), ONE), "PerClass: labels must be int64, got float32"),
    (lambda ctx: rows(9 * ONE, ONE), "labels [9] are not classes"),
    (lambda ctx: rows(ONE, 0 * ONE), "a row has a count below 1"),
    (lambda ctx: ONE if ctx.client else ONE.float(), "it is a Tensor of int64 and was a Tensor of"),
):
    BROKEN.append(("typed-uploads", "plugin", uploads(value, "Upload it."), text))


@breaks("no-hidden-state", "plugin", "attribute 'cache' of the object 'mine' changed")
@plugin
class Writes:
    """Write into a frozen object."""

    @hookimpl
    def server_update(self) -> ServerUpdate:
        object.__setattr__(self, "cache", 1)
        return ServerUpdate()


@breaks("no-hidden-state", "plugin", "class attribute InClass.rounds changed")
@plugin
class InClass:
    """Count rounds in the class."""

    rounds: ClassVar[list[int]] = []

    @hookimpl
    def server_update(self) -> ServerUpdate:
        self.rounds.append(1)
        return ServerUpdate()


@breaks("no-hidden-state", "plugin", "global 'SEEN' of module")
@plugin
class InModule:
    """Count rounds in the module."""

    @hookimpl
    def server_update(self) -> ServerUpdate:
        SEEN.append(1)
        return ServerUpdate()


def keeps(look: Callable[[Any, Any], Any], doc: str) -> type:
    class Keeps:
        @hookimpl
        def local_loss(self, ctx: Any, output: Any) -> Any:
            SEEN.append(look(ctx, output))
            return {}

    Keeps.__doc__ = doc
    return plugin(Keeps)


BROKEN += [
    ("no-live-references", "plugin", keeps(lambda c, o: o, "Keep outputs."), "the model's output"),
    ("no-live-references", "plugin", keeps(lambda c, o: c, "Keep it."), "the client's context"),
    ("no-live-references", "plugin", keeps(lambda c, o: c.model, "Keep it."), "the run's model"),
]


@breaks("inputs-untouched", "plugin", "it writes into 'state'\n  where: plugin 'mine', hook 'serv")
@plugin
class WritesState:
    """Change the weights in place."""

    @hookimpl
    def server_update(self, state: Any) -> ServerUpdate:
        state.weights["classifier.bias"].add_(1)
        return ServerUpdate()


@breaks("inputs-untouched", "plugin", "it writes into 'inputs'\n  where: plugin 'mine', hook 'tran")
@plugin
class WritesInputs:
    """Scale a batch in place."""

    @hookimpl
    def transform(self, inputs: Tensor) -> Tensor:
        return inputs.mul_(2)


@breaks("inputs-untouched", "plugin", "it writes into 'ctx.payload'\n  where: plugin 'mine', hook")
@plugin
class WritesPayload:
    """Change in place what the server sent."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        ctx.payload.weights()["classifier.bias"].add_(1)  # type: ignore[attr-defined]
        return (yield)


@breaks("inputs-untouched", "plugin", "it writes into 'ctx.payload'\n  where: plugin 'mine', hook")
@plugin
class WritesThenReplacesPayload:
    """Change in place what the server sent, and hide that behind another payload."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        clean = {key: copy_to(ctx.payload[key], ctx.device) for key in ctx.payload}
        ctx.payload.weights()["classifier.bias"].add_(1)  # type: ignore[attr-defined]
        ctx.payload = Received(clean, ctx.device)
        return (yield)


def assigns(change: Callable[[ClientContext], object], doc: str) -> type:
    class Assigns:
        @hookimpl(wrapper=True)
        def client_update(self, ctx: ClientContext) -> Any:
            ctx.state["mine"] = ctx.model.state_dict()
            change(ctx)
            return (yield)

    Assigns.__doc__ = doc
    return plugin(Assigns)


BROKEN += [
    ("kept-as-assigned", "plugin", assigns(change, doc), "'mine' is not the one that was assigned")
    for change, doc in (
        (lambda ctx: ctx.state["mine"]["classifier.bias"].add_(1), "Write into it."),
        (lambda ctx: ctx.model.load_state_dict(ctx.state["mine"], assign=True), "Train it."),
    )
]


@breaks("kept-as-assigned", "plugin", "assigned\n  where: round 2, client 0")
@plugin
class Counts:
    """Count a client's turns in place."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        if "mine" in ctx.state:
            ctx.state["mine"].add_(1)  # type: ignore[union-attr]
        else:
            ctx.state["mine"] = torch.ones(())
        return (yield)


# What a plugin does besides a turn's training


@breaks("trainer", "plugin", "no batch was taken from work.batches")
@plugin
class OwnBatches:
    """Train on batches that the pass knows nothing of."""

    @hookimpl
    def train(self, ctx: Any, work: Any) -> bool:
        for batch in ctx.batches(8, 1):
            work.backward(batch)
        return True


@breaks("trainer", "plugin", "work.backward was never called")
@plugin
class OwnGradients:
    """Compute gradients that no other plugin sees."""

    @hookimpl
    def train(self, ctx: Any, work: Any) -> bool:
        for batch in work.batches(8, 1):
            ctx.loss(batch).backward()
        return True


@breaks("further-pass", "plugin", "round 1: metrics.mine is 2.0 and 4.0")
@plugin
class CountsInPlace:
    """Count batches in a value that was there before the pass."""

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Any:
        seen = ctx.scratch["mine"] = []
        trained = yield
        ctx.metric("mine", len(seen))
        return trained

    @hookimpl
    def local_loss(self, ctx: Any) -> Any:
        ctx.scratch["mine"].append(1)
        return {}


@breaks("results-in-order", "plugin", "the results of clients [3, 2, 1, 0] come in this order")
@plugin
class Reverses:
    """Hand on all results, last one first."""

    @hookimpl
    def receive_uploads(self, results: Any) -> Any:
        yield from reversed(list(results))


@breaks("scoring", "plugin", "round 2: metrics.mine is 4.0 and 0.0")
@plugin
class CountsScores:
    """Count how often a client was scored, outside of all states."""

    @hookimpl
    def init_server(self) -> Any:
        COUNTS["scores"] = 0
        return {}

    @hookimpl
    def personalize(self, ctx: Any) -> None:
        COUNTS["scores"] += 1

    @hookimpl
    def server_update(self) -> ServerUpdate:
        return ServerUpdate(metrics={"mine": COUNTS["scores"]})


# Partitions


def partition(divide: Callable[[int, Any], list[Any]], doc: str) -> type:
    class Partition:
        @hookimpl
        def partition(self, data: Any, rng: Any) -> Any:
            return divide(len(data.train), rng)

    Partition.__doc__ = doc
    return plugin(Partition)


def halves(n: int, rng: Any) -> list[Any]:
    order = torch.randperm(n)
    return [order[: n // 2], order[n // 2 :]]


BROKEN += [
    (
        *("partition", "partition", partition(lambda n, rng: [range(3), range(2, n)], "Overlap.")),
        "example 2 goes to clients 0 and 1",
    ),
    (
        *("partition", "partition", partition(lambda n, rng: [range(n), []], "Leave one out.")),
        "of 2 clients, 1 have no example",
    ),
    ("partition", "partition", partition(halves, "Draw."), "the same random stream gives two"),
]


@breaks("too-little-data", "partition", "on six examples ended with an error: IndexError")
@plugin
class TakesTwenty:
    """Count on twenty examples."""

    @hookimpl
    def partition(self, data: Any) -> Any:
        return [[int(data.train.labels[20])], list(range(30, len(data.train)))]


# Methods


BROKEN += [
    ("docstring", "method", Recipe({"mean": {}, "cross_entropy": {}}, "", "Me, 2020"), "`about`"),
    ("source", "method", Recipe({"mean": {}, "cross_entropy": {}}, "mine", "myself"), "no year"),
    (
        *("smoke-round", "method", Recipe({"meann": {}}, "mine", "Me, 2020")),
        "no plugin 'meann' (did you mean 'mean'?)",
    ),
]


# Data sets


def dataset(change: Callable[[Dataset], Dataset], doc: str = "Tiny data.") -> type:
    class Data:
        source: ClassVar[str] = "drawn"
        licence: ClassVar[str] = "CC0"

        def load(self, root: Path) -> Dataset:
            return change(testing.TinyData().load(root))

    Data.__doc__ = doc
    return plugin(Data)


def train(data: Dataset, **changes: Any) -> Dataset:
    part = {**vars(data.train), **changes}
    return replace(data, train=Examples(**part))


def nameless(data: Dataset) -> Dataset:
    return replace(data, clients=())


def from_two(data: Dataset) -> Dataset:
    return replace(data, clients=("ann", "bob"))


def missing(data: Dataset) -> Dataset:
    raise FileNotFoundError("train.csv")


def not_named(data: Dataset) -> Dataset:
    raise ConfigError("no file")


def noisy(data: Dataset) -> Dataset:
    return train(data, labels=torch.randint(0, 3, data.train.labels.shape))


def drawn(data: Dataset) -> Dataset:
    return train(data, inputs=torch.rand(data.train.inputs.shape))


def wider(data: Dataset) -> Dataset:
    return train(data, inputs=torch.cat([data.train.inputs] * 2, dim=1))


BROKEN += [
    ("docstring", "dataset", dataset(lambda d: d, ""), "no docstring"),
    ("source", "dataset", testing.TinyData, "class attribute 'source' is missing"),
    ("missing-files", "dataset", dataset(missing), "FileNotFoundError: train.csv"),
    ("missing-files", "dataset", dataset(not_named), "one line that names the data set: no file"),
    (
        *("dataset-contents", "dataset", dataset(lambda d: train(d, labels=d.train.labels + 1))),
        "labels are not all from 0 to 2\n  where: train",
    ),
    (
        *("dataset-contents", "dataset", dataset(lambda d: train(d, domains=d.train.domains * 0))),
        "domain 'chalk' has no training example",
    ),
    (
        *("dataset-contents", "dataset", dataset(lambda d: train(d, labels=d.train.labels.int()))),
        "labels are int32 (72,), not int64 (72,)",
    ),
    ("dataset-contents", "dataset", dataset(nameless), "clients need both names, in the Dataset"),
    ("dataset-contents", "dataset", dataset(from_two), "clients are not all from 0 to 1"),
    ("dataset-contents", "dataset", dataset(noisy), "two loads give different labels"),
    ("dataset-contents", "dataset", dataset(drawn), "two loads give different values of train"),
    ("dataset-round", "dataset", dataset(wider), "the run ended with an error: RuntimeError"),
]


# Models


class Net(testing.TinyModule):
    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.hidden(x.flatten(1).float()))


def model(make: Callable[[nn.Module, int], nn.Module], doc: str = "A tiny model.") -> type:
    class Model:
        def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
            return make(Net(input_shape, 6, num_classes), num_classes)

    Model.__doc__ = doc
    return plugin(Model)


def headless(net: nn.Module, classes: int) -> nn.Module:
    net.classifier = nn.Sequential(nn.Linear(6, classes))
    return net


SHARED = nn.Linear(6, 3)


def shared(net: nn.Module, classes: int) -> nn.Module:
    if classes == 3:
        net.classifier = SHARED
    del net.norm
    return net


def without(net: nn.Module, classes: int) -> nn.Module:
    del net.norm
    return net


class Centred(Net):
    def features(self, x: Tensor) -> Tensor:
        z = super().features(x)
        return z - z.mean(dim=0)


class Counting(Net):
    def features(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().features(x) * self.calls


def remade(cls: type) -> Callable[[nn.Module, int], nn.Module]:
    def make(net: nn.Module, classes: int) -> nn.Module:
        net.__class__ = cls
        return without(net, classes)

    return make


def random_scale(net: nn.Module, classes: int) -> nn.Module:
    with torch.no_grad():
        net.hidden.weight.mul_(random.random())  # type: ignore[union-attr,operator]
    return without(net, classes)


def picky(net: nn.Module, classes: int) -> nn.Module:
    raise ConfigError("only sounds")


BROKEN += [
    ("model-parts", "model", model(headless), "`classifier` is Sequential, not nn.Linear"),
    ("model-parts", "model", model(picky), "it accepts none of the kit's inputs"),
    ("model-trains", "model", model(lambda net, c: net), "parameter 'norm.weight' gets no grad"),
    ("model-is-its-state", "model", model(shared), "share the memory of 'classifier.weight'"),
    ("model-is-its-state", "model", model(random_scale), "the same seed gives two different"),
    ("model-evaluates-one-by-one", "model", model(remade(Centred)), "logits differ by up to"),
    ("model-round", "model", model(remade(Counting)), "a run in a pool of 2 workers differs"),
]


# Metrics


def metric(score: Callable[[Tensor, Tensor], Any], higher: bool = True) -> type:
    class Metric:
        """A number."""

        higher_is_better: ClassVar[bool] = higher
        unit: ClassVar[Unit] = "percent"

        def __call__(self, scores: Tensor, labels: Tensor) -> Any:
            return score(scores, labels)

    return plugin(Metric)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(1) == labels).double().mean())


def per_class(scores: Tensor, labels: Tensor) -> list[float]:
    right = (scores.argmax(1) == labels).double()
    return [float(right[labels == c].mean()) for c in range(scores.shape[1])]


def in_place(scores: Tensor, labels: Tensor) -> float:
    return accuracy(scores.mul_(2), labels)


def hundred(scores: Tensor, labels: Tensor) -> float:
    return 100 * accuracy(scores, labels)


def pedantic(scores: Tensor, labels: Tensor) -> float:
    raise TypeError("not these")


BROKEN += [
    ("metric-value", "metric", metric(lambda s, y: s.mean()), "not a float or a list of floats"),
    ("metric-value", "metric", metric(per_class), "nan]\n  where: one example"),
    ("metric-value", "metric", metric(in_place), "it writes into its arguments"),
    ("metric-value", "metric", metric(lambda s, y: float(s[0, 0])), "the order of the examples"),
    ("metric-direction", "metric", metric(accuracy, higher=False), "perfect predictions give 1,"),
    ("metric-unit", "metric", metric(hundred), "it returns 100, which would be shown as 10000 %"),
    ("metric-round", "metric", metric(pedantic), "TypeError: not these"),
]


# Executors

LEFT: list[subprocess.Popen[bytes]] = []


class Backwards(InlineWorkers):
    def run(self, payload: Any, jobs: Sequence[Any]) -> Iterator[Any]:
        yield from reversed(list(super().run(payload, jobs)))


class Tampers(InlineWorkers):
    def run(self, payload: Any, jobs: Sequence[Any]) -> Iterator[Any]:
        for result in super().run(payload, jobs):
            result.uploads.weights()["classifier.bias"].add_(1)  # type: ignore[attr-defined]
            yield result


class Vague(InlineWorkers):
    def run(self, payload: Any, jobs: Sequence[Any]) -> Iterator[Any]:
        for answer in super().run(payload, jobs):
            if isinstance(answer, ClientFailure):
                raise RuntimeError("a worker failed")
            yield answer


class Forgiving(InlineWorkers):
    def run(self, payload: Any, jobs: Sequence[Any]) -> Iterator[Any]:
        answers = super().run(payload, jobs)
        yield from (answer for answer in answers if not isinstance(answer, ClientFailure))


class Litters(InlineWorkers):
    def __init__(self, runtime: Any) -> None:
        super().__init__(runtime)
        LEFT.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))


def executor(workers: type) -> type:
    class Executor:
        """Run clients."""

        def open(self, runtime: Any) -> Any:
            return workers(runtime)

    return plugin(Executor)


BROKEN += [
    ("executor-result", "executor", executor(Backwards), "results arrive in the order [3, 2, 1"),
    ("executor-result", "executor", executor(Tampers), "give a different result: "),
    ("executor-failure", "executor", executor(Vague), "does not name the client: a worker failed"),
    ("executor-failure", "executor", executor(Forgiving), "continued as if nothing had happened"),
    ("executor-cleans-up", "executor", executor(Litters), "processes are left after the run"),
]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    SEEN.clear()
    COUNTS.clear()
    for process in LEFT:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    LEFT.clear()


def names(case: Case) -> str:
    return f"{case[0]}-{getattr(case[2], '__name__', 'Recipe')}"


@pytest.mark.parametrize("case", BROKEN, ids=names)
def test_the_kit_catches(case: Case, registry_with: Callable[..., Any]) -> None:
    name, kind, thing, text = case
    if name == "executor-cleans-up" and not sys.platform.startswith("linux"):
        pytest.skip("children are listed by Linux only")
    rules = testing.rules(kind, "mine", registry_with(**{kind: thing}))
    (rule,) = [rule for rule in rules if rule.name == name]
    with pytest.raises(testing.RuleBroken) as caught:
        rule.check()
    message = str(caught.value)
    assert message.startswith(f"{kind} 'mine' breaks the rule {name!r}: {rule.statement}\n")
    assert text in message
    assert "\n  mend: " in message


def test_every_rule_is_broken_by_something() -> None:
    assert {case[0] for case in BROKEN} == {name for name, _, _ in testing.table()}
