"""Personalised methods and their bounds: what this package registers of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedbench.types import Recipe

from . import (
    apfl,
    centralised,
    ditto,
    fedbabu,
    fedbn,
    fedper,
    fedrep,
    fine_tuning,
    pfedme,
)

PLUGINS: Mapping[str, type] = {
    "fedper": fedper.FedPer,
    "fedrep": fedrep.FedRep,
    "fedbabu": fedbabu.FedBabu,
    "fedbn": fedbn.FedBn,
    "ditto": ditto.Ditto,
    "apfl": apfl.Apfl,
    "pfedme": pfedme.PFedMe,
    "fine_tuning": fine_tuning.FineTuning,
    "centralised": centralised.Centralised,
}

Plugins = dict[str, dict[str, Any]]


def averaged(*plugins: str, weights: str = "examples") -> Plugins:
    """Return FedAvg's plugins and more; ``weights`` is how the mean weighs clients."""
    mean = {} if weights == "examples" else {"weights": weights}
    return {"exchange": {}, "mean": mean, "cross_entropy": {}, **{name: {} for name in plugins}}


PERSONAL, BOUNDS = "personal models", "bounds"

RECIPES: Mapping[str, Recipe] = {
    "fedper": Recipe(
        plugins=averaged("fedper"),
        about="the extractor is averaged; every client keeps its own classifier",
        source="Arivazhagan et al., Federated Learning with Personalization Layers, 2019",
        family=PERSONAL,
    ),
    "fedrep": Recipe(
        plugins=averaged("fedrep"),
        about="a turn first fits the client's own classifier, then the averaged extractor",
        source="Collins et al., Exploiting Shared Representations, ICML 2021",
        family=PERSONAL,
    ),
    "fedbabu": Recipe(
        plugins=averaged("fedbabu", "fine_tuning", weights="uniform"),
        about="only the extractor is trained and averaged; clients fine-tune before their scores",
        source="Oh et al., FedBABU, ICLR 2022",
        family=PERSONAL,
    ),
    "fedbabu-global": Recipe(
        plugins=averaged("fedbabu", weights="uniform"),
        about="FedBABU without fine-tuning: one global model with a random classifier",
        source="Oh et al., FedBABU, ICLR 2022",
        family=PERSONAL,
    ),
    "fedbn": Recipe(
        plugins=averaged("fedbn", weights="uniform"),
        about="every client keeps its own batch norm; the rest is averaged",
        source="Li et al., FedBN, ICLR 2021",
        family=PERSONAL,
    ),
    "ditto": Recipe(
        plugins=averaged("ditto", weights="uniform"),
        about="FedAvg, and beside it a personal model per client that stays near the global one",
        source="Li et al., Ditto, ICML 2021",
        family=PERSONAL,
    ),
    "apfl": Recipe(
        plugins=averaged("apfl"),
        about="every client uses a mix of a personal model and the shared one",
        source="Deng et al., Adaptive Personalized Federated Learning, 2020",
        family=PERSONAL,
    ),
    "pfedme": Recipe(
        plugins=averaged("pfedme"),
        about="personal models near the shared one, which moves towards them (Moreau envelopes)",
        source="Dinh et al., Personalized FL with Moreau Envelopes, NeurIPS 2020",
        family=PERSONAL,
    ),
    "fedavg-ft": Recipe(
        plugins=averaged("fine_tuning"),
        about="FedAvg whose clients fine-tune the global model before they are scored",
        source="McMahan et al., AISTATS 2017, fine-tuned as in Oh et al., FedBABU, ICLR 2022",
        family=BOUNDS,
    ),
    "local": Recipe(
        plugins={"personal": {}, "cross_entropy": {}},
        about="every client trains alone; nothing is exchanged",
        source="the lower bound, as in Smith et al., Federated Multi-Task Learning, NeurIPS 2017",
        family=BOUNDS,
    ),
    "centralised": Recipe(
        plugins=averaged("centralised"),
        about="one client with exactly the examples that the partition gave to all clients",
        source="the upper bound, as SGD on all data in McMahan et al., AISTATS 2017",
        family=BOUNDS,
    ),
}
