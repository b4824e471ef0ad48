"""A package with the method ``sticky``, the partition ``by_ink`` and the metric ``mrr``."""

from fedbench import Recipe, hookimpl

from .by_ink import ByInk
from .mrr import MeanReciprocalRank
from .sticky import Sticky

fedbench_api = 1


@hookimpl
def register_plugins():
    """Return the method's plugin and the partition."""
    return {"sticky": Sticky, "by_ink": ByInk}


@hookimpl
def register_metrics():
    """Return the metric."""
    return {"mrr": MeanReciprocalRank}


@hookimpl
def register_recipes():
    """Return the method."""
    return {
        "sticky": Recipe(
            plugins={"exchange": {}, "mean": {}, "cross_entropy": {}, "sticky": {}},
            about="local weights stay near a mean of the client's own earlier ones",
            source="an example; its term is FedProx's (Li et al., MLSys 2020) around another point",
        )
    }
