"""What registered classes must offer: one protocol per kind, with shapes and units.

Core uses registered data sets, models, metrics and executors only through these protocols. A class
need not inherit from its protocol; it only needs the attributes and methods. The return type in
``register_models() -> Mapping[str, type[ModelSource]]`` lets mypy check what a package registers.
`fedbench.plugins.facts` lists what a class may state in class attributes (a data set's card, a
plugin's requirements).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from .failures import ClientFailure
from .text import Unit
from .types import Chunk, ClientJob, ClientResult, Dataset, Model, Output, Value, Weights

if TYPE_CHECKING:
    from .runtime import Runtime

FetchReport = Callable[[str, int, int | None], None]
"""Called with (what, done, total) as files arrive, in bytes or files; ``None``: total unknown."""


class DataSource(Protocol):
    """A registered data set: a frozen dataclass of options that loads a `Dataset`."""

    def load(self, root: Path) -> Dataset:
        """Return the data; ``root`` is the folder where data sets look for their files.

        Raises:
            ConfigError: when files are missing or damaged, with one line that says what to do.
        """
        ...


@runtime_checkable
class FetchedSource(DataSource, Protocol):
    """A data set that can download its files: ``fedbench data fetch NAME`` calls `fetch`."""

    def fetch(self, root: Path, report: FetchReport) -> None:
        """Download the files into ``root``, reporting progress.

        Raises:
            ConfigError: when that fails, or when files have to be obtained by hand; it says how.
        """
        ...


class ModelSource(Protocol):
    """A registered model: a frozen dataclass of options that builds an `nn.Module`."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Model:
        """Return a freshly initialised `nn.Module` that is a `Model`, for one data set.

        Args:
            input_shape: of one example, without the batch: (channels, height, width) for images.
            num_classes: C.

        Raises:
            ConfigError: for a shape that the model does not accept.
        """
        ...


class Metric(Protocol):
    """A registered metric: a number, or one number per class, from class scores and labels.

    The class states ``higher_is_better``, which decides the worst domain and the best round, and
    its ``unit``: ``percent`` for a fraction of 1 that is shown as a percentage, ``plain`` for any
    other number.
    """

    higher_is_better: ClassVar[bool]
    unit: ClassVar[Unit]

    def __call__(self, scores: Tensor, labels: Tensor) -> float | list[float] | list[float | None]:
        """Score ``scores`` (N, C) against ``labels`` (N,) of one domain's test data.

        Returns:
            A finite number, or C of them, with ``None`` for a class that has no value.
        """
        ...


class Workers(Protocol):
    """The workers that execute a run's clients; an `Executor` opens them."""

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield one answer per job, in client-id order, holding few of them at any time.

        Answers come from `Runtime.run_client`, computed anywhere and in any order, and are passed
        on unchanged. A client's failure is an answer too. An error that this method raises itself
        (a lost worker) ends the run under every failure policy, because its cause is the machine.
        """
        ...

    def close(self) -> None:
        """Stop the workers and release their resources; called once, also after an error."""
        ...


@runtime_checkable
class EvaluatingWorkers(Workers, Protocol):
    """Workers that also run models on test data; without them the server's process does that."""

    def test(self, weights: Weights, chunks: Sequence[Chunk]) -> Iterator[Output]:
        """Yield `Runtime.run_chunk`'s output for each part of the test data, in order."""
        ...


class Executor(Protocol):
    """A registered executor: a frozen dataclass of options that opens workers."""

    def open(self, runtime: Runtime) -> Workers:
        """Start the workers of a run and return them."""
        ...
