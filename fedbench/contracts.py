"""What plugins bring: protocols that mypy checks, with shapes and units.

Core calls a plugin's classes only through these. A class need not inherit from its protocol; it
needs the attributes and methods. ``register_models() -> Mapping[str, type[ModelSource]]`` lets mypy
check what a package registers. What a class may say of itself in class attributes (a data set's
card, a plugin's requirements) is in `fedbench.plugins.facts`.
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
"""Called with (what, done, total) while files arrive, in bytes or files; ``None`` for no total."""


class DataSource(Protocol):
    """A registered data set: a frozen dataclass of options that loads a `Dataset`."""

    def load(self, root: Path) -> Dataset:
        """Return the data; ``root`` is the folder in which data sets look for their files.

        Raises:
            ConfigError: when files are missing or damaged, in one line that says what to do.
        """
        ...


@runtime_checkable
class FetchedSource(DataSource, Protocol):
    """A data set that can bring its files: ``fedbench data fetch NAME`` calls it."""

    def fetch(self, root: Path, report: FetchReport) -> None:
        """Download the files into ``root`` and report the progress.

        Raises:
            ConfigError: when that fails, or when files have to be brought by hand, saying how.
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
            ConfigError: for a shape that the model cannot take.
        """
        ...


class Metric(Protocol):
    """A number, or one number per class, from class scores and labels.

    The class states ``higher_is_better``, which decides the worst domain and the best round, and
    its ``unit``: ``percent`` for a fraction of 1 that is shown as a percentage, else ``plain``.
    """

    higher_is_better: ClassVar[bool]
    unit: ClassVar[Unit]

    def __call__(self, scores: Tensor, labels: Tensor) -> float | list[float] | list[float | None]:
        """Score ``scores`` (N, C) against ``labels`` (N,) of one domain's test data.

        Returns:
            a finite number, or C of them, with ``None`` for a class for which there is none.
        """
        ...


class Workers(Protocol):
    """Where the clients of one run compute; an `Executor` makes it."""

    def run(
        self, payload: Mapping[str, Value], jobs: Sequence[ClientJob]
    ) -> Iterator[ClientResult | ClientFailure]:
        """Yield one answer for each job, in client-id order, with few of them waiting at any time.

        Answers come from `Runtime.run_client` and are passed on as they are, computed anywhere and
        in any order. A client that fails is an answer too. What this raises itself (a lost worker)
        ends the run under every policy, because it says something about the machine.
        """
        ...

    def close(self) -> None:
        """Release what the workers hold; called once, also after an error."""
        ...


@runtime_checkable
class EvaluatingWorkers(Workers, Protocol):
    """Workers that also run models on test data; without this the server's process does it."""

    def test(self, weights: Weights, chunks: Sequence[Chunk]) -> Iterator[Output]:
        """Yield `Runtime.run_chunk` of each part of the test data, in their order."""
        ...


class Executor(Protocol):
    """A registered executor: a frozen dataclass of options that opens workers."""

    def open(self, runtime: Runtime) -> Workers:
        """Start the workers of a run."""
        ...
