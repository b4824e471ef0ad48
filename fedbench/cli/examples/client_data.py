"""Show the first clients their images as negatives."""

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from fedbench import Examples, hookimpl


@dataclass(frozen=True, eq=False)
class Negative:
    """Invert the uint8 images of clients 0 to ``clients`` - 1."""

    clients: Annotated[int, Field(ge=0, description="number of clients that see negatives")] = 1

    @hookimpl
    def client_data(self, data: Examples, client: int) -> Examples:
        return replace(data, inputs=255 - data.inputs) if client < self.clients else data
