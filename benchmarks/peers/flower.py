"""The workload in Flower: its simulation engine with Ray, one actor a core.

    PYTHONPATH=benchmarks python -m peers.flower WORKLOAD ROUNDS [DEVICE CLIENTS_AT_ONCE]

Clients train with the plain loop's own function; an actor makes the images once and keeps them, as
the plain loop does. Evaluation is central, after each round. On ``cuda``, clients that run at once
share one GPU.
"""

from __future__ import annotations

import functools
import json
import os
import sys

import plain
import torch
from common import build, test_images
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import Tensor
from workloads import WORKLOADS, Workload, gpu_share


@functools.cache
def clients(workload: Workload, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Images and labels of each client."""
    return plain.on(device, workload)


@functools.cache
def model_of(workload: Workload, device: torch.device) -> torch.nn.Module:
    """The actor's one model, loaded anew for each client."""
    return build(workload).to(device)


def client_app(workload: Workload, device: torch.device) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        from peers import (
            flower,  # by its name, so that an actor keeps what the functions above have cached
        )

        model = flower.model_of(workload, device)
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        x, y = flower.clients(workload, device)[int(context.node_config["partition-id"])]
        plain.train(model, x, y, workload)
        content = {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(y)}),
        }
        return Message(content=RecordDict(content), reply_to=message)

    return app


def server_app(workload: Workload, rounds: int, device: torch.device) -> ServerApp:
    app = ServerApp()
    model = build(workload).to(device)
    pixels, labels = test_images(workload)
    images, labels = plain.floats(pixels).to(device), labels.to(device)

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number == 0:  # before the first round; the others don't evaluate then either
            return None
        model.load_state_dict(arrays.to_torch_state_dict())
        accuracy = plain.accuracy(model, images, labels)
        print(json.dumps({"round": number, "accuracy": accuracy}), flush=True)
        return MetricRecord({"accuracy": accuracy})

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_train=workload.online / workload.clients,
            fraction_evaluate=0.0,
            min_train_nodes=workload.online,
            min_available_nodes=workload.clients,
        )
        strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model.state_dict()),
            num_rounds=rounds,
            evaluate_fn=evaluate,
        )

    return app


def main() -> None:
    workload, rounds = WORKLOADS[sys.argv[1]], int(sys.argv[2])
    device = torch.device((sys.argv[3:4] or ["cpu"])[0])
    at_once = int((sys.argv[4:5] or [os.cpu_count()])[0])
    torch.manual_seed(0)
    run_simulation(
        server_app=server_app(workload, rounds, device),
        client_app=client_app(workload, device),
        num_supernodes=workload.clients,
        backend_config={
            "init_args": {"num_cpus": at_once},
            "client_resources": {"num_cpus": 1, "num_gpus": gpu_share(at_once, device.type)},
        },
    )


if __name__ == "__main__":
    main()
