"""The sizes of the benchmark workloads; their data and models are in `common`.

W1 is a ResNet-10 on 32 x 32 colour images with ten clients, all online: convolutions on a few large
batches. W2 is the CNN of McMahan et al. (AISTATS 2017) on 28 x 28 grey images with 10 of 100
clients online and batches of 10: many tiny steps. GRID is that CNN with rounds of about a second,
for studies of many short runs. Pixels and labels are random, because the cost of
a step does not depend on the images' content; nothing here measures accuracy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Workload:
    """Sizes of a federation and of its local training: one epoch of SGD without momentum."""

    name: str
    model: str
    shape: tuple[int, int, int]
    clients: int
    online: int
    examples: int
    batch: int
    lr: float
    augment: bool
    classes: int = 10
    test: int = 1000

    @property
    def as_dict(self) -> dict[str, object]:
        return asdict(self)


W1 = Workload(
    name="w1",
    model="resnet10",
    shape=(3, 32, 32),
    clients=10,
    online=10,
    examples=500,
    batch=64,
    lr=0.1,
    augment=True,
)
W2 = Workload(
    name="w2",
    model="cnn",
    shape=(1, 28, 28),
    clients=100,
    online=10,
    examples=600,
    batch=10,
    lr=0.05,
    augment=False,
)
GRID = replace(W2, name="grid", clients=4, online=4, examples=300, batch=32)
SHORT = {
    "w1": replace(W1, name="w1-short", clients=3, online=3, examples=24, batch=8, test=20),
    "w2": replace(W2, name="w2-short", clients=6, online=3, examples=30, test=20),
}
"""The same with very little work: to show that it runs, not how fast."""

WORKLOADS = {w.name: w for w in (W1, W2, GRID, *SHORT.values())}


def gpu_share(clients: int, device: str) -> float:
    """Return the share of one GPU for each of some clients at once, 0 on a CPU.

    It is rounded down to Ray's resolution of 0.0001, so that all of them have room.
    """
    return 10_000 // clients / 10_000 if device == "cuda" else 0.0


def overhead_goal(megabytes: float) -> float:
    """Return the goal for a client that trains nothing, with weights of that size, in milliseconds.

    It is 4 ms for 4.9 MB (ResNet-10's 74 tensors) and 28 ms for 100 MB, and a line in between.
    """
    return 4 + (megabytes - 4.9) * (28 - 4) / (100 - 4.9)
