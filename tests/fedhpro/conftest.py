"""FedHPro on the tiny data set and on one that fits on paper, and ways to look inside."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedbench.config import resolve as configs
from fedbench.config.model import RunConfig
from fedbench.config.yamlfile import Document
from fedbench.context import ClientContext
from fedbench.engine.run import Run
from fedbench.hookspecs import hookimpl
from fedbench.types import Dataset, Examples, PerClass, Report, ServerState, ServerUpdate


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    """Run small tensors on one thread, as in a run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def resolve(registry, tiny_config) -> Callable[..., RunConfig]:
    """Resolve a method on the tiny data set, with ``--set`` and ``--without``."""

    def resolved(
        method: str = "fedhpro",
        *,
        sets: Sequence[str] = (),
        without: Sequence[str] = (),
        **given: Any,
    ) -> RunConfig:
        data = tiny_config(registry, method, executor="inline", **given).to_dict()
        return configs.resolve(registry, file=Document(data, "test"), sets=sets, without=without)

    return resolved


@pytest.fixture
def run(registry, resolve) -> Callable[..., Run]:
    """Run a method to its end; arguments as in `resolve`."""

    def finished(*args: Any, **given: Any) -> Run:
        made = Run(resolve(*args, **given), registry=registry)
        made.run()
        return made

    return finished


@pytest.fixture
def look(registry, add) -> Callable[..., dict[str, Any]]:
    """Register a plugin ``spy`` and return the options that add it: ``extra=look(client=...)``.

    Runs are inline, so the spy sees everything in this process. ``client(ctx)`` is called before a
    client's training, after all other plugins have done their work before it, and
    ``server(state, reports)`` after the round's other server updates.
    """

    def install(
        client: Callable[[ClientContext], None] = lambda ctx: None,
        server: Callable[[ServerState, Sequence[Report]], None] = lambda state, reports: None,
    ) -> dict[str, Any]:
        @dataclass(frozen=True, eq=False)
        class Spy:
            @hookimpl(wrapper=True)
            def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
                client(ctx)
                return (yield)

            @hookimpl
            def server_update(self, state: ServerState, reports: Sequence[Report]) -> ServerUpdate:
                server(state, reports)
                return ServerUpdate()

        registry.entries.pop(("plugin", "spy"), None)
        add(spy=Spy)
        return {"spy": {}}

    return install


@pytest.fixture
def on_paper(registry, add, look) -> Callable[..., Run]:
    """Run FedHPro where every number can be computed on paper.

    Two clients, three classes, features (0, 0) for every example, so that all probabilities are
    1/3. Client 0 holds classes 0, 0, 1; client 1 holds 1, 1; no client holds class 2. One batch,
    one epoch, plain SGD with lr 0.3. ``online`` lists the clients that take part.
    """

    def finished(
        *,
        without: Sequence[str] = (),
        sets: Sequence[str] = (),
        online: Sequence[int] = (0, 1),
        **spies: Any,
    ) -> Run:
        @dataclass(frozen=True, eq=False)
        class Paper:
            def load(self, root: Path) -> Dataset:
                labels = torch.tensor([0, 0, 1, 1, 1])
                every = Examples(torch.zeros(5, 2), labels, torch.zeros(5, dtype=torch.int64))
                return Dataset(("zero", "one", "two"), ("sheet",), every, every)

        class PaperModule(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.classifier = nn.Linear(2, 3)
                with torch.no_grad():
                    self.classifier.weight.copy_(torch.tensor([[3.0, 0], [0, 3], [0, 0]]))
                    self.classifier.bias.zero_()

            def features(self, x: Tensor) -> Tensor:
                return x

        @dataclass(frozen=True, eq=False)
        class PaperModel:
            def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
                return PaperModule()

        @dataclass(frozen=True, eq=False)
        class TwoClients:
            @hookimpl
            def partition(self, data: Dataset) -> list[Tensor]:
                return [torch.tensor([0, 1, 2]), torch.tensor([3, 4])]

            @hookimpl
            def select_clients(self) -> Sequence[int]:
                return online

        package = SimpleNamespace(
            register_datasets=hookimpl(lambda: {"paper": Paper}),
            register_models=hookimpl(lambda: {"paper": PaperModel}),
        )
        registry.add(package, "tests")
        add(two_clients=TwoClients)
        sgd = {"epochs": 1, "batch_size": 8, "lr": 0.3, "momentum": 0.0, "weight_decay": 0.0}
        file = {
            "data": "paper",
            "model": "paper",
            "executor": "inline",
            "rounds": 1,
            "plugins": {
                "two_clients": {},
                "sgd": sgd,
                **registry.get("recipe", "fedhpro").value.plugins,
                **look(**spies),
            },
        }
        config = configs.resolve(registry, file=Document(file, "test"), sets=sets, without=without)
        made = Run(config, registry=registry)
        made.run()
        return made

    return finished


@pytest.fixture
def rows() -> Callable[[dict[int, Tensor]], PerClass]:
    """Make a `PerClass` with one row per class."""

    def made(values: dict[int, Tensor]) -> PerClass:
        labels = torch.tensor(list(values))
        return PerClass(labels, torch.stack(list(values.values())), torch.ones_like(labels))

    return made
