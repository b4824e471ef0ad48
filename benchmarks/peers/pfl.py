"""The workload in pfl: its simulated backend in one process, PyTorch's default threads.

    PYTHONPATH=benchmarks python -m peers.pfl WORKLOAD ROUNDS

pfl trains: the module gives it the loss of a batch, augmentation included. It averages trainable
parameters only, so batch norm's running statistics stay those of the client that trained last.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import plain
import torch
from common import augment, build, test_images, train_images
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.nn import functional as F
from workloads import WORKLOADS, Workload


class Module(nn.Module):
    """The model with the two functions that pfl asks for."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.model, self.workload = build(workload), workload

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        self.model.train()
        return F.cross_entropy(self.model(augment(x) if self.workload.augment else x), y)

    @torch.no_grad()
    def metrics(self, x: Tensor, y: Tensor, central: bool = False) -> dict[str, Weighted]:
        if not central:  # pfl looks at every client before and after its first training too
            return {}
        self.model.eval()
        return {"accuracy": Weighted(int((self.model(x).argmax(1) == y).sum()), len(y))}


class Report(TrainingProcessCallback):
    """Tells of each finished round."""

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: object, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        print(json.dumps({"round": central_iteration + 1}), flush=True)
        return False, Metrics()


def main() -> None:
    workload, rounds = WORKLOADS[sys.argv[1]], int(sys.argv[2])
    np.random.seed(0)
    torch.manual_seed(0)
    pixels, labels = train_images(workload)
    parts = plain.floats(pixels).split(workload.examples)
    clients = list(zip(parts, labels.split(workload.examples), strict=True))
    del pixels

    def data(client: int) -> PyTorchTensorDataset:
        x, y = clients[client]
        order = torch.randperm(len(y))
        return PyTorchTensorDataset((x[order], y[order]), user_id=str(client))

    users = get_user_sampler("minimize_reuse", list(range(workload.clients)))
    training = FederatedDataset(data, users)
    pixels, labels = test_images(workload)
    test = PyTorchTensorDataset((plain.floats(pixels), labels), eval_kwargs={"central": True})
    module = Module(workload)
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds,
            train_cohort_size=workload.online,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=training, val_data=training),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=workload.lr,
            local_batch_size=workload.batch,
        ),
        callbacks=[
            CentralEvaluationCallback(test, NNEvalHyperParams(local_batch_size=500)),
            Report(),
        ],
        send_metrics_to_platform=False,
    )


if __name__ == "__main__":
    main()
