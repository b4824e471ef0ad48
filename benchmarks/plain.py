"""FedAvg as a hand-written loop, with which everything else is compared.

    python benchmarks/plain.py WORKLOAD ROUNDS [DEVICE [strict]]

It is one process with PyTorch's default number of threads (one per core). All images are in memory
as float tensors, one model is reloaded for each client, and the mean is a running mean. Nothing
else is tuned: memory layout, allocator and precision are the defaults. On a GPU, model and images
are there; ``strict`` sets cuDNN to what fedbench sets: deterministic, and float32 without TF32. It
prints one JSON line per round.
"""

from __future__ import annotations

import json
import sys

import torch
from common import augment, build, test_images, train_images
from torch import Tensor, nn
from torch.nn import functional as F
from workloads import WORKLOADS, Workload


def floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def on(device: torch.device, workload: Workload) -> list[tuple[Tensor, Tensor]]:
    """Return the images and labels of each client, on a device."""
    pixels, labels = train_images(workload)
    parts = floats(pixels).to(device).split(workload.examples)
    return list(zip(parts, labels.to(device).split(workload.examples), strict=True))


def train(model: nn.Module, x: Tensor, y: Tensor, workload: Workload) -> None:
    """Train for one epoch of SGD on a client's images ``x`` (N, channels, height, width)."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.lr)
    for index in torch.randperm(len(x), device=x.device).split(workload.batch):
        images = augment(x[index]) if workload.augment else x[index]
        optimizer.zero_grad()
        F.cross_entropy(model(images), y[index]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the fraction of images that the model classifies correctly."""
    model.eval()
    right = sum(
        int((model(images).argmax(1) == labels).sum())
        for images, labels in zip(x.split(500), y.split(500), strict=True)
    )
    return right / len(y)


def main() -> None:
    workload, rounds = WORKLOADS[sys.argv[1]], int(sys.argv[2])
    device = torch.device((sys.argv[3:4] or ["cpu"])[0])
    if "strict" in sys.argv[4:]:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    clients = on(device, workload)
    pixels, test_labels = test_images(workload)
    test, test_labels = floats(pixels).to(device), test_labels.to(device)
    model = build(workload).to(device)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for number in range(1, rounds + 1):
        mean = {k: torch.zeros_like(v) for k, v in weights.items() if v.is_floating_point()}
        seen = 0
        for client in torch.randperm(workload.clients)[: workload.online].tolist():
            x, y = clients[client]
            model.load_state_dict(weights)
            train(model, x, y, workload)
            seen += len(y)
            trained = model.state_dict()
            for name, value in mean.items():
                value.lerp_(trained[name], len(y) / seen)
        weights = {**weights, **mean}
        model.load_state_dict(weights)
        print(json.dumps({"round": number, "accuracy": accuracy(model, test, test_labels)}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
