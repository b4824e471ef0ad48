"""AG's News on small files laid out as the originals are, and the model for its token ids."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fedbench_datasets.public_text import AgNews, TextEmbedding, vocabulary, words

from fedbench import ConfigError

pytestmark = pytest.mark.usefixtures("own_cache")

Message = Callable[[Any, Path], str]

ROWS = {
    "train": [
        ("1", "Peace Talks", "The UN said the talks go on"),
        ("2", "Cup Final", "The cup goes to the team"),
        ("3", "Stocks Fall", "Oil #39;s price\\and stocks fall"),
        ("4", "New Chip", 'A "fast" chip, they say'),
    ],
    "test": [
        ("4", "Chip", "unheard words"),
        ("3", "Oil", "oil"),
        ("2", "Cup", "the cup"),
        ("1", "!?", "--"),
    ],
}


@pytest.fixture
def news(tmp_path: Path) -> Path:
    (tmp_path / "ag-news").mkdir()
    for split, rows in ROWS.items():
        with (tmp_path / f"ag-news/{split}.csv").open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    return tmp_path


def test_words_and_vocabulary() -> None:
    assert words('Oil #39;s price\\and "Stocks", 2 U.S.') == (
        ["oil's", "price", "and", "stocks", "2", "u", "s"]
    )
    texts = [(0, ["b", "a", "c"]), (1, ["c", "b", "c"])]
    assert vocabulary(texts, 10) == {"c": 2, "b": 3, "a": 4}
    assert vocabulary(texts, 4) == {"c": 2, "b": 3}
    assert vocabulary([(0, ["z", "y"])], 3) == {"y": 2}


def test_ag_news_is_token_ids_with_the_training_vocabulary(news: Path) -> None:
    data = AgNews(length=6).load(news)
    assert data.classes == ("world", "sports", "business", "technology")
    assert data.train.inputs.dtype == torch.int64
    assert data.train.inputs.shape == data.test.inputs.shape == (4, 6)
    assert data.train.labels.tolist() == [0, 1, 2, 3]
    assert data.test.labels.tolist() == [3, 2, 1, 0]
    chip, unheard, other, *rest = data.test.inputs[0].tolist()
    assert chip in data.train.inputs[3].tolist()
    assert [unheard, other, *rest] == [1, 1, 0, 0, 0]  # unknown words, then padding
    assert data.test.inputs[3].tolist() == [0] * 6  # a text without words
    the = data.test.inputs[2].tolist()[1]
    assert the == 2  # "the" is the most frequent word
    small = AgNews(vocabulary=5, length=6).load(news)
    assert int(small.train.inputs.max()) == 4


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.replace('"2"', '"5"'), "train.csv:2: truncated or damaged: expected a class"),
        (lambda t: t.replace('"Cup Final",', ""), "train.csv:2: truncated or damaged"),
        (lambda t: t[:-12], "train.csv: truncated: its last row has no closing quote"),
        (lambda t: t.replace('"4"', '"3"'), "expected examples of 4 classes, found 3"),
        (lambda t: "", "train.csv: truncated or damaged: empty"),
    ],
)
def test_damage_to_ag_news_is_one_line(
    news: Path, change: Callable[[str], str], text: str, message: Message
) -> None:
    path = news / "ag-news/train.csv"
    path.write_text(change(path.read_text()))
    assert text in message(AgNews(), news)
    path.write_bytes(b'"1","a","\xff"\n')
    assert "train.csv: truncated or damaged ('utf-8' codec" in message(AgNews(), news)
    path.unlink()
    assert "ag-news/train.csv: no such file" in message(AgNews(), news)


def test_features_are_the_mean_over_words_that_are_no_padding() -> None:
    model = TextEmbedding(vocabulary=5, feature_size=3).build((4,), 2)
    table = model.embedding.weight.detach()
    ids = torch.tensor([[2, 3, 0, 0], [4, 4, 4, 2], [0, 0, 0, 0]])
    features = model.features(ids)
    wanted = torch.stack([(table[2] + table[3]) / 2, (3 * table[4] + table[2]) / 4, torch.zeros(3)])
    torch.testing.assert_close(features, wanted)
    model.classifier(features).sum().backward()
    assert not model.embedding.weight.grad[0].any()  # padding is never trained
    assert model.embedding.weight.grad[2].any()


def test_the_text_model_names_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="takes rows of token ids, not inputs 3 x 32 x 32"):
        TextEmbedding().build((3, 32, 32), 4)
    model = TextEmbedding(vocabulary=5).build((4,), 2)
    with pytest.raises(ConfigError, match="has 5 rows, but the data have id 7: set model"):
        model.features(torch.tensor([[7]]))


def test_rounds_on_text_learn(news: Path, registry: Any) -> None:
    from fedbench.config import resolve as configs
    from fedbench.engine.run import Run

    plugins = {
        "domains": {"clients_per_domain": 2},
        "uniform": {},
        "sgd": {"epochs": 20, "batch_size": 2, "lr": 0.5},
        **registry.get("recipe", "fedavg").value.plugins,
    }
    data = {
        "method": "fedavg",
        "data": {"name": "ag-news", "length": 8, "vocabulary": 50},
        "model": {"name": "text_embedding", "vocabulary": 50, "feature_size": 8},
        "rounds": 2,
        "plugins": plugins,
    }
    config = configs.resolve(registry, file=configs.Document(data, "test"))
    run = Run(config, registry=registry, data_root=news)
    results = list(run.rounds())
    losses = [sum(v for k, v in r.metrics.items() if k.startswith("loss.")) for r in results]
    assert losses[1] < losses[0]
