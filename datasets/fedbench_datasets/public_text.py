"""AG's News as token ids, and the embedding classifier for it.

AG's News in the form of Zhang, Zhao & LeCun, NeurIPS 2015. The model is the mean of the word
embeddings and a linear classifier, after Joulin et al., EACL 2017.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor, nn

from fedbench.errors import ConfigError

from . import folders, reading
from .caching import ReadError, Source, Writer, why
from .fetching import Download
from .public_base import Public

PADDING, UNKNOWN = 0, 1
WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
CHUNK = 4096

Text = tuple[int, list[str]]
"""A label and its words."""


def words(text: str) -> list[str]:
    """Return the lower-case words of a text; ``#39;`` in the files is an apostrophe."""
    return WORD.findall(text.lower().replace("#39;", "'").replace(" '", "'"))


def vocabulary(texts: Iterable[Text], size: int) -> dict[str, int]:
    """Number the most frequent words from 2: at most ``size`` ids, with padding and unknown words.

    Equally frequent words come in alphabetical order.
    """
    counts = Counter(word for _, found in texts for word in found)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(ranked[: size - 2], UNKNOWN + 1)}


def encode(texts: Sequence[Text], known: Mapping[str, int], length: int) -> npt.NDArray[np.int64]:
    """Return ids (n, length): the first words of each text, then padding."""
    ids = np.full((len(texts), length), PADDING, dtype=np.int64)
    for row, (_, found) in zip(ids, texts, strict=True):
        cut = found[:length]
        row[: len(cut)] = [known.get(word, UNKNOWN) for word in cut]
    return ids


def read_csv(path: Path, classes: int) -> list[Text]:
    """Read rows ``class,title,description`` with classes from 1; return them with classes from 0.

    Raises:
        ReadError: when a row is damaged or a class is missing; it names the file and line.
    """
    texts: list[Text] = []
    if not _ends_whole(path):
        raise ReadError(f"{path}: truncated: its last row has no closing quote")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            for row in rows:
                if len(row) < 3 or not row[0].isdecimal() or not 1 <= int(row[0]) <= classes:
                    raise ReadError(
                        f"{path}:{rows.line_num}: truncated or damaged: expected a class from 1 to "
                        f"{classes}, a title and a text"
                    )
                texts.append((int(row[0]) - 1, words(" ".join(row[1:]))))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReadError(f"{path}: truncated or damaged ({why(error)})") from error
    reading.checked_labels(path, [label for label, _ in texts], classes)
    return texts


def _ends_whole(path: Path) -> bool:
    """Return whether the file ends with a quote, if its fields are quoted."""
    with path.open("rb") as file:
        quoted = file.read(1) == b'"'
        file.seek(max(0, path.stat().st_size - 16))
        return not quoted or file.read().rstrip().endswith(b'"')


@dataclass(frozen=True, eq=False)
class AgNews(Public):
    """AG's News: 127,600 news texts on four topics (120,000 for training), as token ids.

    Files in ``ROOT/ag-news/`` (or ``ag_news_csv/`` in it): ``train.csv`` and ``test.csv``. Inputs
    are int64 (N, length); the vocabulary comes from the training texts. Model: ``text_embedding``.
    """

    name: ClassVar[str] = "ag-news"
    size: ClassVar[str] = "127,600 texts"
    licence: ClassVar[str] = "non-commercial use"
    source: ClassVar[str] = "http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html"
    domains: ClassVar[tuple[str, ...]] = ("ag-news",)
    classes: ClassVar[tuple[str, ...]] = ("world", "sports", "business", "technology")
    downloads: ClassVar[tuple[Download, ...]] = tuple(
        Download(
            (
                "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/"
                f"ag_news_csv/{name}",
            ),
            name,
            f"md5:{md5}",
        )
        for name, md5 in (
            ("train.csv", "b1a00f826fdfbd249f79597b59e1dc12"),
            ("test.csv", "d52ea96a97a2d943681189a97654912d"),
        )
    )

    vocabulary: Annotated[
        int, Field(ge=3, description="largest number of ids, with padding and unknown words")
    ] = 20_000
    length: Annotated[int, Field(ge=1, le=1000, description="words kept per text")] = 64

    def _open(self, root: Path) -> Source:
        base = self._base(root)
        files = {
            split: folders.find([base], f"{split}.csv", f"ag_news_csv/{split}.csv")
            for split in ("train", "test")
        }

        def decode(out: Writer) -> tuple[Sequence[str], Sequence[str]]:
            texts = {split: read_csv(path, len(self.classes)) for split, path in files.items()}
            known = vocabulary(texts["train"], self.vocabulary)
            for split, found in texts.items():
                for start in range(0, len(found), CHUNK):
                    part = found[start : start + CHUNK]
                    out.add(split, encode(part, known, self.length), [label for label, _ in part])
            return self.classes, self.domains

        return Source(base, list(files.values()), decode)


class TextEmbeddingModule(nn.Module):
    """The mean of the embeddings of a text's words, and a linear classifier."""

    def __init__(self, vocabulary: int, feature_size: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, feature_size, padding_idx=PADDING)
        nn.init.uniform_(self.embedding.weight, -0.5, 0.5)
        self.classifier = nn.Linear(feature_size, classes)

    def features(self, ids: Tensor) -> Tensor:
        """Map ids (B, length) to the mean embedding (B, d) of those that are not padding.

        Raises:
            ConfigError: on the CPU, when an id is outside the vocabulary.
        """
        if ids.device.type == "cpu" and int(ids.max()) >= self.embedding.num_embeddings:
            raise ConfigError(
                f"model text_embedding has {self.embedding.num_embeddings} rows, but the data "
                f"have id {int(ids.max())}: set model.vocabulary to the data set's vocabulary"
            )
        kept = (ids != PADDING).unsqueeze(-1)
        total = (self.embedding(ids) * kept).sum(dim=1)
        mean: Tensor = total / kept.sum(dim=1).clamp(min=1)
        return mean


@dataclass(frozen=True, eq=False)
class TextEmbedding:
    """The mean of word embeddings without padding, for token ids (N, length); d = feature_size."""

    vocabulary: Annotated[
        int, Field(ge=3, description="number of ids, as in the data set's option")
    ] = 20_000
    feature_size: Annotated[int, Field(ge=1, description="d, size of an embedding")] = 128

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> TextEmbeddingModule:
        """Build the model for inputs (length,).

        Raises:
            ConfigError: when the inputs are not rows of ids.
        """
        if len(input_shape) != 1:
            shape = " x ".join(map(str, input_shape))
            raise ConfigError(f"model text_embedding takes rows of token ids, not inputs {shape}")
        return TextEmbeddingModule(self.vocabulary, self.feature_size, num_classes)
