"""The values that plugins exchange: batches, outputs, uploads, server state, results.

Shapes: ``B`` batch, ``C`` classes, ``d`` feature size, ``N`` examples. Whatever crosses the
boundary between a client and the server is first sealed (`seal`): detached and copied to the CPU.
A live reference can therefore never leak from one side to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from .pictures import Picture
from .scores import CLIENTS_KEPT, ClientScores, Score, Scores, SplitScores
from .turns import Failure, Flight, Turn
from .values import (
    Empty,
    Encoded,
    Payload,
    PerClass,
    Received,
    Value,
    Weights,
    assembled,
    copy_to,
    flatten,
    kind_of,
    nbytes,
    seal,
    sha256,
    tensors,
    unflatten,
)


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled examples as tensors in memory.

    Args:
        inputs: (N, ...), uint8 images (N, channels, height, width) or other model inputs.
        labels: (N,) int64.
        domains: (N,) int64, an index into the data set's domain names.
        clients: (N,) int64, an index into the names of the data set's own clients, such as the
            writer of each image; ``None`` for data that do not come from clients.
    """

    inputs: Tensor
    labels: Tensor
    domains: Tensor
    clients: Tensor | None = None

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def __getitem__(self, index: Tensor) -> Examples:
        """Return the examples at positions ``index`` (n,), int64, or where a mask is true."""

        def chosen(part: Tensor) -> Tensor:
            # index_select copies whole rows; plain indexing takes twenty times as long on bytes.
            return part.index_select(0, index) if index.dtype == torch.int64 else part[index]

        clients = None if self.clients is None else chosen(self.clients)
        return Examples(chosen(self.inputs), chosen(self.labels), chosen(self.domains), clients)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A loaded data set: train and test examples over one or more domains.

    Args:
        classes: names of the classes.
        domains: names of the domains.
        train: what clients share out among them.
        test: what the run's accuracy is measured on.
        clients: names of the data set's own clients, if its examples come from clients.
        extra: further test sets by name, such as images with a backdoor's stamp: the global model
            is scored on each by itself, and these scores enter no mean and no accuracy.
    """

    classes: tuple[str, ...]
    domains: tuple[str, ...]
    train: Examples
    test: Examples
    clients: tuple[str, ...] = ()
    extra: Mapping[str, Examples] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch on the device, transformed.

    Args:
        inputs: (B, ...) float.
        labels: (B,) int64.
        epoch: the local epoch it belongs to, from 0.
        epochs: how many local epochs there are.
    """

    inputs: Tensor
    labels: Tensor
    epoch: int
    epochs: int


@dataclass(frozen=True, eq=False)
class Output:
    """The model's output for a batch: ``features`` (B, d) and ``logits`` (B, C)."""

    features: Tensor
    logits: Tensor


class Model(Protocol):
    """A feature extractor with a linear classifier on top; it is also an `nn.Module`."""

    classifier: nn.Linear

    def features(self, inputs: Tensor) -> Tensor:
        """Map inputs (B, ...) to features (B, d)."""
        ...


BF16 = "fedbench_bf16"
"""Attribute that marks a model as running under bfloat16 autocast; copies of the model keep it."""


def forward(model: nn.Module, inputs: Tensor) -> Output:
    """Run ``model`` (a `Model`) on a batch and return its features and logits.

    With ``precision: bf16`` the features are computed under autocast and returned as float32. The
    classifier always computes in float32, so losses and closed forms work in full precision.
    """
    bf16 = getattr(model, BF16, False)
    with torch.autocast(inputs.device.type, torch.bfloat16) if bf16 else nullcontext():
        features = model.features(inputs)  # type: ignore[operator]
    features = features.float() if bf16 else features
    return Output(features, model.classifier(features))  # type: ignore[operator]


@dataclass(frozen=True, eq=False)
class ServerState:
    """Everything that the server keeps between rounds.

    Args:
        round: rounds completed, 0 at the start.
        weights: the global model, parameters and buffers by name.
        entries: what plugins keep, by key.
        flight: the virtual time, and the clients that are at work.
    """

    round: int
    weights: Weights
    entries: Payload
    flight: Flight = field(default_factory=Flight)

    def copy(self) -> ServerState:
        """Return a copy that shares no memory with this state."""
        cpu = torch.device("cpu")
        weights = copy_to(self.weights, cpu)
        assert isinstance(weights, Mapping)
        entries = {key: copy_to(value, cpu) for key, value in self.entries.items()}
        return replace(self, weights=weights, entries=Payload(entries, "the server's state"))

    @property
    def classifier(self) -> tuple[Tensor, Tensor]:
        """The global linear classifier: weight (C, d) and bias (C,)."""
        return self.weights["classifier.weight"], self.weights["classifier.bias"]


@dataclass(frozen=True, eq=False)
class ServerUpdate:
    """What a plugin's `server_update` or `aggregate` changes.

    Args:
        entries: state entries to write, by key; a key belongs to the plugin that wrote it first.
        weights: entries of the global model to replace, by parameter name.
        metrics: numbers to report for this round, by name.
        pictures: what reports draw of this round; `fedbench.pictures`.
    """

    entries: Mapping[str, Value] = field(default_factory=dict)
    weights: Weights = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Chunk:
    """A part of the data that is scored, for one forward pass: examples ``start`` to ``stop``.

    Args:
        round: after which round.
        domain: of the whole test or validation data of this domain, by its index, or of the extra
            test set at this place, or
        start: the first example.
        stop: the example after the last one.
        split: ``test``, ``validation`` or ``extra``.
        client: instead of a domain's, the data that this client holds out.
    """

    round: int
    domain: int
    start: int
    stop: int
    split: str = "test"
    client: int | None = None


@dataclass(frozen=True, eq=False)
class ClientJob:
    """One client's work in one round.

    Args:
        round: the round.
        client: the client's id.
        state: what the client kept from its last turn.
        scored: the parts of the data on which to score the client's own model, after the round;
            ``None`` for the client's turn.
        keep: whether to return the client's own model too.
        digests: whether to compute the checksums of what the client sends.
    """

    round: int
    client: int
    state: Mapping[str, Value]
    scored: tuple[Chunk, ...] | None = None
    keep: bool = False
    digests: bool = True


@dataclass(frozen=True, eq=False)
class ClientResult:
    """What one client sends back, sealed.

    Args:
        client: its id.
        examples: how many training examples it holds.
        uploads: what travels to the server, by key; bytes are counted per key.
        metrics: numbers to report.
        state: what the client keeps for its next turn; it does not travel.
        seconds: wall-clock time of the client's work.
        failures: attempts that failed before this one, and what went wrong in this one.
        digests: `fedbench.values.checksum` of each uploaded tensor, by ``key/name``, in the form in
            which it travelled; empty if the job asks for none.
        sent: what the server had sent the client, as `ClientContext.sent`.
        trained: how many examples it trained on, those of every epoch, pass and attempt.
        staleness: how many rounds ended between its start and the round that uses it.
        observed: what plugins observed in the turn, by key; it does not travel.
    """

    client: int
    examples: int
    uploads: Payload
    metrics: Mapping[str, float]
    state: Mapping[str, Value]
    seconds: float
    failures: Sequence[Failure] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    sent: Payload = field(default_factory=lambda: Payload({}, "the broadcast"))
    trained: int = 0
    staleness: int = 0
    observed: Mapping[str, Value] = field(default_factory=dict)

    def with_uploads(self, uploads: Mapping[str, Value]) -> ClientResult:
        """Return the result with other uploads, for ``receive_uploads``."""
        return replace(self, uploads=Payload(uploads, f"the uploads of client {self.client}"))


@dataclass(frozen=True, eq=False)
class Report:
    """What `server_update` sees of a client: its result without the weights."""

    client: int
    examples: int
    uploads: Payload
    metrics: Mapping[str, float]
    staleness: int = 0
    observed: Payload = field(default_factory=lambda: Payload({}, "the observations"))


@dataclass(frozen=True)
class RoundResult:
    """One round as it is written to ``rounds.jsonl``.

    Args:
        round: from 1.
        clients: the ids whose turns ended, ascending; without a schedule, those that were selected.
        scores: ``inference rule -> metric -> Scores`` on the test data after the round; empty for
            a round that is not scored (``evaluate_every``).
        metrics: the plugins' numbers (loss terms, diagnostics), by name.
        bytes_up: bytes that all clients together sent to the server, by key.
        bytes_down: bytes that the server sent to all clients together, by key.
        seconds: wall-clock time of the round.
        failures: what went wrong in clients' turns, in client-id order. A ``lost`` client is not
            in the aggregate, nor in any number above except ``bytes_down``.
        client_scores: ``inference rule -> metric -> ClientScores`` on the test data that clients
            hold out.
        validation: the same on the validation data that clients hold out, over domains and clients.
        extra_scores: inference rule -> metric -> extra test set -> value, with the global model.
        personal_seconds: wall-clock time of making and scoring clients' own models; it is not in
            ``seconds``.
        personal_bytes: bytes that all clients together would receive for that, by key.
        time: when the round ended, in virtual seconds; ``None`` in a run without a clock.
        turns: under a clock, the turns that ended in the round, in client-id order.
        pictures: the plugins' pictures of the round.
    """

    round: int
    clients: Sequence[int]
    scores: Mapping[str, Mapping[str, Scores]]
    metrics: Mapping[str, float]
    bytes_up: Mapping[str, int]
    bytes_down: Mapping[str, int]
    seconds: float
    failures: tuple[Failure, ...] = ()
    client_scores: Mapping[str, Mapping[str, ClientScores]] = field(default_factory=dict)
    validation: SplitScores = field(default_factory=SplitScores)
    extra_scores: Mapping[str, Mapping[str, Mapping[str, Score]]] = field(default_factory=dict)
    personal_seconds: float = 0.0
    personal_bytes: Mapping[str, int] = field(default_factory=dict)
    time: float | None = None
    turns: tuple[Turn, ...] = ()
    pictures: tuple[Picture, ...] = ()


RunStatus: TypeAlias = Literal["finished", "failed", "interrupted"]
"""How a run ended: with its result, by an error, or stopped by its user and ready to be resumed."""


@dataclass(frozen=True)
class Recipe:
    """A method: its plugins with their options, and the paper that it comes from.

    Args:
        plugins: plugin name -> options, in order; they come after the card's plugins.
        about: one line on the idea.
        source: paper, venue, year.
        without: the card's plugins that this method leaves out; the card need not have them. Those
            whose single hooks the method implements itself are replaced and need not be listed.
        family: what lists of methods are grouped by, a few words such as ``prototypes``.
    """

    plugins: Mapping[str, Mapping[str, Any]]
    about: str
    source: str
    without: tuple[str, ...] = ()
    family: str = ""


__all__ = [
    "CLIENTS_KEPT",
    "Batch",
    "Chunk",
    "ClientJob",
    "ClientResult",
    "ClientScores",
    "Dataset",
    "Empty",
    "Encoded",
    "Examples",
    "Failure",
    "Flight",
    "Model",
    "Output",
    "Payload",
    "PerClass",
    "Received",
    "Recipe",
    "Report",
    "RoundResult",
    "RunStatus",
    "Score",
    "Scores",
    "ServerState",
    "ServerUpdate",
    "SplitScores",
    "Turn",
    "Value",
    "Weights",
    "assembled",
    "copy_to",
    "flatten",
    "forward",
    "kind_of",
    "nbytes",
    "seal",
    "sha256",
    "tensors",
    "unflatten",
]
