"""The workload in fluke: its FedAVG in one process, PyTorch's default threads.

    PYTHONPATH=benchmarks python -m peers.fluke WORKLOAD ROUNDS

fluke trains and evaluates, with its own loader of tensors; its server tests in batches of 128.
"""

from __future__ import annotations

import json
import sys

import plain
from common import augment, build, test_images, train_images
from fluke import DDict, FlukeENV
from fluke.algorithms.fedavg import FedAVG
from fluke.data import DataContainer, DataSplitter
from fluke.evaluation import ClassificationEval
from fluke.utils import FederationObserver
from torchmetrics import Accuracy
from workloads import WORKLOADS


class Report(FederationObserver):
    """Tells of each finished round."""

    def end_round(self, round: int) -> None:
        print("\n" + json.dumps({"round": round}), flush=True)


def main() -> None:
    workload, rounds = WORKLOADS[sys.argv[1]], int(sys.argv[2])
    environment = FlukeENV()
    environment.set_seed(0)
    environment.set_device("cpu")
    accuracy = Accuracy(task="multiclass", num_classes=workload.classes)
    environment.set_evaluator(ClassificationEval(1, workload.classes, accuracy=accuracy))
    pixels, labels = train_images(workload)
    test_pixels, test_labels = test_images(workload)
    data = DataContainer(
        plain.floats(pixels),
        labels,
        plain.floats(test_pixels),
        test_labels,
        num_classes=workload.classes,
        transforms=augment if workload.augment else None,
    )
    del pixels, test_pixels
    algorithm = FedAVG(
        n_clients=workload.clients,
        data_splitter=DataSplitter(data, "iid"),
        hyper_params=DDict(
            model=build(workload),
            client=DDict(
                batch_size=workload.batch,
                local_epochs=1,
                loss="CrossEntropyLoss",
                optimizer=DDict(name="SGD", lr=workload.lr),
                scheduler=DDict(name="StepLR", step_size=1, gamma=1),
            ),
            server=DDict(weighted=True),
        ),
    )
    algorithm.set_callbacks([Report()])
    algorithm.run(n_rounds=rounds, eligible_perc=workload.online / workload.clients)


if __name__ == "__main__":
    main()
