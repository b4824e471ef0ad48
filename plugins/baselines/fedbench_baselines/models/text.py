"""A model for texts: the character-level LSTM on Shakespeare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from fedbench.errors import ConfigError


class CharLstmModule(nn.Module):
    """The module that `CharLstm` builds."""

    def __init__(
        self, vocabulary: int, embedding: int, size: int, layers: int, classes: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, size, layers, batch_first=True)
        self.classifier = nn.Linear(size, classes)

    def features(self, ids: Tensor) -> Tensor:
        """Map ids (B, T), int64, to features (B, d): the last layer's output after the last id.

        Raises:
            ConfigError: on the CPU, when an id is outside the vocabulary.
        """
        if ids.device.type == "cpu" and int(ids.max()) >= self.embedding.num_embeddings:
            raise ConfigError(
                f"model 'char_lstm' knows {self.embedding.num_embeddings} characters, but the data "
                f"has id {int(ids.max())}: set model.vocabulary to the data set's number of ids"
            )
        outputs, _ = self.lstm(self.embedding(ids))  # (B, T, d)
        last: Tensor = outputs[:, -1]
        return last

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.classifier(self.features(ids))
        return logits


@dataclass(frozen=True, eq=False)
class CharLstm:
    """A two-layer LSTM over character ids (T,), as in LEAF and FedProx on Shakespeare; d = 256.

    An embedding of 8 values and two LSTM layers of 256 units predict the character after the last
    one, so there is one class per character (Caldas et al., LEAF, 2018; Li et al., FedProx, MLSys
    2020). A data set for it has inputs (N, T) of dtype int64. PyTorch's LSTM has two bias vectors
    per gate where TensorFlow's, which those papers used, has one.
    """

    vocabulary: Annotated[
        int, Field(ge=1, description="number of character ids, as in the data set")
    ] = 80
    embedding: Annotated[int, Field(ge=1, description="size of a character's embedding")] = 8
    feature_size: Annotated[int, Field(ge=1, description="units per LSTM layer, d")] = 256
    layers: Annotated[int, Field(ge=1, description="LSTM layers")] = 2

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> CharLstmModule:
        """Return a freshly initialised model for inputs (T,).

        Raises:
            ConfigError: when the inputs are not rows of ids.
        """
        if len(input_shape) != 1:
            raise ConfigError(
                f"model 'char_lstm' needs rows of character ids (T,); the inputs of this data set "
                f"have shape {input_shape}"
            )
        return CharLstmModule(
            self.vocabulary, self.embedding, self.feature_size, self.layers, num_classes
        )
