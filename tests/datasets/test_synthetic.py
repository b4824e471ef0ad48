"""FedProx's Synthetic(alpha, beta): the formulas, the sizes, and clients of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fedbench_datasets.natural import Natural
from fedbench_datasets.synthetic import DEVIATIONS, Synthetic, examples, sizes

from fedbench.cli import main
from fedbench.store.fingerprint import of_data
from fedbench.types import Dataset

NOWHERE = Path("nowhere")


def of_client(data: Dataset, client: int) -> torch.Tensor:
    return data.train.inputs[data.train.clients == client]


def test_an_example_is_labelled_by_the_clients_own_linear_model() -> None:
    rng = np.random.RandomState(1)
    weight, bias = rng.standard_normal((60, 10)), rng.standard_normal(10)
    centre = np.arange(60.0)
    inputs, labels = examples(4000, centre, weight, bias, rng)
    for x, y in zip(inputs[:20], labels[:20], strict=True):
        scores = [sum(x[j] * weight[j, c] for j in range(60)) + bias[c] for c in range(10)]
        assert y == max(range(10), key=scores.__getitem__)
    assert np.allclose(inputs.mean(0), centre, atol=0.07)
    assert np.allclose(inputs.std(0), DEVIATIONS, rtol=0.06)
    assert DEVIATIONS[[0, 1, 59]] ** 2 == pytest.approx([1, 2**-1.2, 60**-1.2])


def test_sizes_are_fifty_and_a_lognormal_number() -> None:
    drawn = sizes(20_000, np.random.RandomState(0))
    assert drawn.min() == 50
    logs = np.log(drawn - 49.5)
    assert np.median(logs) == pytest.approx(4, abs=0.05)
    assert np.quantile(logs, 0.8413) == pytest.approx(6, abs=0.1)


def test_it_has_thirty_clients_of_its_own_whose_examples_train_and_test() -> None:
    data = Synthetic().load(NOWHERE)
    assert data.train.inputs.shape[1:] == (60,)
    assert data.train.inputs.dtype == torch.float32
    assert data.clients[0] == "client 0"
    assert len(data.clients) == 30
    train, test = (part.clients.bincount(minlength=30) for part in (data.train, data.test))
    assert torch.equal(train, (0.9 * (train + test)).long())
    assert data.train.labels.unique().tolist() == list(range(10))
    parts = Natural().partition(data=data, rng=np.random.default_rng(0))
    assert [len(part) for part in parts] == train.tolist()


def test_the_same_options_give_the_same_data_and_other_seeds_others() -> None:
    first = of_data(Synthetic().load(NOWHERE))
    assert of_data(Synthetic().load(NOWHERE)) == first
    others = (Synthetic(seed=1), Synthetic(beta=0.5), Synthetic(form="iid"))
    assert len({first, *(of_data(other.load(NOWHERE)) for other in others)}) == 4


def test_alpha_changes_nothing_because_it_moves_the_scores_of_all_classes_alike() -> None:
    assert len({of_data(Synthetic(alpha=a).load(NOWHERE)) for a in (0.0, 0.5, 1.0, 10.0)}) == 1


def test_beta_moves_the_clients_inputs_apart() -> None:
    def spread(beta: float) -> float:
        data = Synthetic(beta=beta).load(NOWHERE)
        centres = torch.stack([of_client(data, k).mean() for k in range(30)])
        return float(centres.std())

    # The mean of 60 entries of v_k has the variance 1/60 + beta^2.
    assert spread(0.0) == pytest.approx(60**-0.5, rel=0.4)
    assert spread(1.0) == pytest.approx(1.0, rel=0.4)


def test_clients_label_differently_but_in_the_iid_form_alike() -> None:
    def agreement(form: str) -> float:
        """Return how well a linear model of half of the clients labels the others' examples."""
        data = Synthetic(form=form).load(NOWHERE).train
        half = data.clients % 2 == 0
        inputs = torch.cat([data.inputs, torch.ones(len(data), 1)], dim=1).double()
        targets = torch.nn.functional.one_hot(data.labels, 10).double()
        fitted = torch.linalg.lstsq(inputs[half], targets[half]).solution
        right = (inputs[~half] @ fitted).argmax(1) == data.labels[~half]
        return float(right.double().mean())

    assert agreement("iid") > 0.7
    assert agreement("clients") < 0.5


def test_iid_inputs_have_mean_zero_on_every_client() -> None:
    data = Synthetic(form="iid", clients=5).load(NOWHERE)
    for client in range(5):
        inputs = of_client(data, client)
        assert float(inputs.mean()) == pytest.approx(0, abs=5 / len(inputs) ** 0.5 / 8)


def test_showing_the_data_says_that_they_have_clients(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["data", "show", "synthetic", "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert (
        "30 clients of its own, 45 to 4,645 training examples each: use the partition natural"
        in (" ".join(done.output.split()))
    )
