"""A package with a method that consists of existing plugins."""

from collections.abc import Mapping

from fedbench import Recipe, hookimpl

fedbench_api = 1


@hookimpl
def register_recipes() -> Mapping[str, Recipe]:
    return {
        "fedavg-smooth": Recipe(
            plugins={"exchange": {}, "mean": {}, "cross_entropy": {"label_smoothing": 0.1}},
            about="FedAvg with label smoothing",
            source="an example of the documentation",
        )
    }
