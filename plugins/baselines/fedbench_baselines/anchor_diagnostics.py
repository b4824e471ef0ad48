"""Diagnostics of features and class anchors, for any run: ``--with anchor_diagnostics``.

Class anchors are what a method's plugin says they are (``anchors``, see `fedbench.anchors`):
prototypes, cluster centres, hyper-prototypes. In a round that is measured, each client examines its
model right after its training, in evaluation mode, with examples of its own training data (after
``client_data``), never with test data. Formulas are in `.representations`; numbers of clients are
averaged plainly.

With anchors, those that the round's clients received:

- ``consistency``: mean cosine of a class's anchor and a client's mean feature of the class;
  ``consistency.std_clients`` and ``consistency.std_domains``: its spread within a class.
- ``separation.mean_cosine`` and ``separation.max_cosine`` of anchors of different classes.
- ``drift``: mean relative change of the anchors since they were last sent.
- ``gradient_agreement``: mean cosine of the classifier's gradients that a class's anchors and a
  client's examples of it induce, both under the client's classifier.
- ``nearest_accuracy``: share of examples whose nearest anchor by cosine has their class.

With and without:

- ``uniformity`` (Wang and Isola, ICML 2020) of a client's features in a domain: mean over domains
  and, with several, of each.
- ``effective_rank`` (Roy and Vetterli, EUSIPCO 2007) of a client's centred features. It is at most
  their number, so it can be compared only between runs with the same examples.
- ``cka``: mean linear CKA (Kornblith et al., ICML 2019) of the models of all pairs of clients, for
  the same examples from all clients' training data. A high CKA of few examples in many dimensions
  says little.

What it observes in a turn does not travel and changes no bit of the training. Pictures are made in
the first, the middle and the last round that is measured.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from fedbench import (
    ClientContext,
    Examples,
    PerClass,
    Report,
    ServerContext,
    ServerState,
    ServerUpdate,
    hookimpl,
)
from fedbench.values import all_finite

from . import representations as numbers
from .anchor_pictures import pictures

KEY = "anchor_diagnostics"
SENT = "anchor_diagnostics.sent"


def due(number: int, rounds: int, every: int) -> bool:
    """Return whether a round is measured: every n-th one, and the last."""
    return number % every == 0 or number == rounds


def pictured(rounds: int, every: int) -> set[int]:
    """Return the rounds with pictures: the first, the middle and the last that is measured."""
    measured = [number for number in range(1, rounds + 1) if due(number, rounds, every)]
    return {measured[0], measured[(len(measured) - 1) // 2], measured[-1]}


def some_of_each(labels: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Return the positions of at most ``most`` random examples of each class, class by class."""
    order = torch.randperm(len(labels), generator=rng)
    return torch.cat([order[labels[order] == label][:most] for label in labels.unique()])


@dataclass(frozen=True, eq=False)
class Seen:
    """What a client's model makes of some of its examples, in float64 on the CPU.

    Args:
        features: (n, d).
        labels: (n,) int64.
        domains: (n,) int64.
    """

    features: Tensor
    labels: Tensor
    domains: Tensor

    def of(self, mask: Tensor) -> Seen:
        """Return the part where ``mask`` (n,) is true."""
        return Seen(self.features[mask], self.labels[mask], self.domains[mask])

    def by_domain(self) -> Mapping[int, Seen]:
        """Return the parts by domain."""
        return {int(v): self.of(self.domains == v) for v in self.domains.unique()}


def without_anchors(seen: Seen, probe: Tensor) -> dict[str, Tensor]:
    """Return a client's numbers that need no anchors; ``probe`` (n, d) are common features."""
    found = {v: numbers.uniformity(part.features) for v, part in seen.by_domain().items()}
    uniform = {v: value for v, value in found.items() if value is not None}
    centred = seen.features - seen.features.mean(dim=0)
    return {
        "rank": torch.tensor(numbers.effective_rank(centred), dtype=torch.float64),
        "gram": numbers.unit_gram(probe),
        "uniformity": torch.tensor(list(uniform.values()), dtype=torch.float64),
        "uniformity.domains": torch.tensor(list(uniform), dtype=torch.int64),
    }


def with_anchors(seen: Seen, anchors: PerClass, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Return a client's numbers about anchors; ``weight`` (C, d) and ``bias`` (C,) classify."""
    whole = numbers.consistency(seen.features, seen.labels, anchors)
    parts = {
        v: numbers.consistency(part.features, part.labels, anchors)
        for v, part in seen.by_domain().items()
    }
    given = seen.features, seen.labels, anchors
    return {
        "consistency": whole.values,
        "consistency.classes": whole.labels,
        "by_domain": torch.cat([part.values for part in parts.values()]),
        "by_domain.classes": torch.cat([part.labels for part in parts.values()]),
        "by_domain.domains": torch.cat([torch.full_like(p.labels, v) for v, p in parts.items()]),
        "agreement": numbers.gradient_agreement(*given, weight, bias).values,
        "nearest": numbers.nearest_is_own(*given).double(),
    }


def of_clients(
    observed: Sequence[Mapping[str, Tensor]], domains: Sequence[str]
) -> dict[str, float]:
    """Return the round's numbers from what its clients observed, by name."""

    def joined(key: str) -> Tensor:
        return torch.cat([one[key] for one in observed if key in one] or [torch.empty(0)])

    def over_clients(key: str) -> float | None:
        means = [float(one[key].mean()) for one in observed if key in one and len(one[key])]
        return fmean(means) if means else None

    found: dict[str, float | None] = {
        "consistency": over_clients("consistency"),
        "gradient_agreement": over_clients("agreement"),
        "nearest_accuracy": over_clients("nearest"),
        "effective_rank": fmean(float(one["rank"]) for one in observed),
        "cka": numbers.mean_cka(torch.stack([one["gram"] for one in observed])),
    }
    if found["consistency"] is not None:
        held = [one["consistency.classes"] for one in observed if "consistency" in one]
        clients = torch.cat([torch.full_like(classes, n) for n, classes in enumerate(held)])
        cosines = joined("consistency")
        found["consistency.std_clients"] = numbers.spread(cosines, torch.cat(held), clients)
        places = (joined(f"by_domain{part}") for part in ("", ".classes", ".domains"))
        found["consistency.std_domains"] = numbers.spread(*places)
    by_domain = PerClass.means(joined("uniformity"), joined("uniformity.domains").long())
    if len(by_domain):
        found["uniformity"] = float(by_domain.values.mean())
    if len(domains) > 1:
        for v, value in zip(by_domain.labels, by_domain.values, strict=True):
            found[f"uniformity.{domains[int(v)]}"] = float(value)
    return {name: value for name, value in found.items() if value is not None}


def of_anchors(anchors: PerClass, before: PerClass | None) -> dict[str, float]:
    """Return the numbers of the anchors alone, by name; ``before`` were those sent last."""
    found: dict[str, float] = {}
    if apart := numbers.separation(anchors):
        found |= {"separation.mean_cosine": apart[0], "separation.max_cosine": apart[1]}
    moved = numbers.relative_change(before, anchors) if before else None
    return found if moved is None else {**found, "drift": moved}


def in_double(rows: PerClass) -> PerClass:
    """Return rows on the CPU with values in float64."""
    return PerClass(rows.labels.cpu(), rows.values.detach().cpu().double(), rows.counts.cpu())


@dataclass(frozen=True, eq=False)
class AnchorDiagnostics:
    """Measure features and class anchors, and draw them; the training stays the same, to the bit.

    Numbers are the metrics ``anchor_diagnostics.*``; the page of `fedbench report` has them over
    rounds, with projections of the features and the anchors' similarity.
    """

    every: Annotated[
        int, Field(ge=1, description="measured are every n-th round and the last one")
    ] = 1
    per_class: Annotated[
        int, Field(ge=1, description="maximum number of examples per client and class")
    ] = 20
    probe: Annotated[
        int, Field(ge=2, description="examples that all clients' models are compared on (CKA)")
    ] = 128
    points: Annotated[
        int, Field(ge=0, description="maximum number of points in a picture; 0 for no pictures")
    ] = 500

    @hookimpl(wrapper=True)
    def client_update(self, ctx: ClientContext) -> Generator[None, object, object]:
        trained = yield
        if due(ctx.round, ctx.rounds, self.every):
            self._observe(ctx)
        return trained

    def _observe(self, ctx: ClientContext) -> None:
        # The same examples in every round, so that rounds differ by models only.
        rng = ctx.streams.torch(KEY, client=ctx.client)
        chosen = ctx.data[some_of_each(ctx.data.labels, self.per_class, rng)]

        def features(data: Examples, stream: str) -> Tensor:
            return ctx.examine(data, f"{KEY}/{stream}").features.cpu().double()

        seen = Seen(features(chosen, "own"), chosen.labels, chosen.domains)
        common = features(ctx.probe(self.probe), "probe")
        if not (all_finite(seen.features) and all_finite(common)):
            return  # training has diverged, which the run itself reports
        found = without_anchors(seen, common)
        if anchors := ctx.anchors:
            layer = cast(nn.Linear, ctx.model.classifier)
            weight, bias = (part.detach().cpu().double() for part in (layer.weight, layer.bias))
            found |= with_anchors(seen, in_double(anchors), weight, bias)
        if self._draws(ctx.round, ctx.rounds):
            found |= {"features": seen.features.float()}
            found |= {"labels": seen.labels, "domains": seen.domains}
        ctx.observe(KEY, found)

    def _draws(self, number: int, rounds: int) -> bool:
        return self.points > 0 and number in pictured(rounds, self.every)

    @hookimpl
    def server_update(
        self, ctx: ServerContext, state: ServerState, reports: Sequence[Report]
    ) -> ServerUpdate:
        anchors = ctx.anchors
        entries = {SENT: anchors.average()} if anchors else {}
        observed = [report.observed.weights(KEY) for report in reports if KEY in report.observed]
        if not observed:
            return ServerUpdate(entries)
        found = of_clients(observed, ctx.domains)
        if anchors:
            before = state.entries.per_class(SENT) if SENT in state.entries else None
            found |= of_anchors(in_double(anchors), in_double(before) if before else None)
        # Late clients began in another round, which may have no pictures.
        shown = [one for one in observed if "features" in one]
        draws = bool(shown) and self._draws(ctx.round, ctx.rounds)
        drawn = pictures(shown, anchors, ctx, self.points) if draws else ()
        metrics = {f"{KEY}.{name}": value for name, value in found.items()}
        return ServerUpdate(entries, metrics=metrics, pictures=drawn)
