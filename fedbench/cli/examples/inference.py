"""Predict by the angle between a feature and the classifier's rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from fedbench import Output, ServerState, hookimpl


@dataclass(frozen=True, eq=False)
class Cosine:
    """Score a class by the cosine between the feature and the classifier's row for the class."""

    @hookimpl
    def inference(self, state: ServerState) -> Mapping[str, Callable[[Output], Tensor]]:
        rows = normalize(state.classifier[0], dim=1)

        def scores(output: Output) -> Tensor:
            features = normalize(output.features, dim=1)
            return features @ rows.to(features).T

        return {"cosine": scores}
