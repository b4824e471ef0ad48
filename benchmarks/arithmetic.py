"""What methods compute beside FedAvg's training, according to their formulas."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arithmetic:
    """What a turn computes beside FedAvg's, according to the method's formulas.

    Attributes:
        steps: further training steps for each of FedAvg's.
        passes: further forward passes over the client's examples. Each counts as a third of a step,
            because a backward pass takes about two forward passes.
        why: what it computes.
    """

    steps: float = 0.0
    passes: float = 0.0
    why: str = ""

    @property
    def turn(self) -> float:
        """The turn as a multiple of FedAvg's."""
        return 1 + self.steps + self.passes / 3


LOSS = Arithmetic(passes=1, why="the received model's loss on all examples")
MEANS = Arithmetic(passes=1, why="features of all examples after training")
SHARPNESS = Arithmetic(steps=1, why="a second gradient in each step")
PERSONAL = Arithmetic(steps=1, why="a personal model is trained too")
BEYOND: dict[str, Arithmetic] = {
    **dict.fromkeys(("afl", "qfedavg", "term"), LOSS),
    **dict.fromkeys(
        ("fedgh", "fednh", "fedpcl", "fedplvm", "fedproc", "fedtgp", "fedtgp-aaai"), MEANS
    ),
    **dict.fromkeys(("fedsam", "fedasam"), SHARPNESS),
    **dict.fromkeys(("apfl", "ditto"), PERSONAL),
    **dict.fromkeys(
        ("fedhpro", "fedhpro-published"),
        Arithmetic(passes=1, why="class gradients of the received model on all examples"),
    ),
    "fedrep": Arithmetic(
        passes=1, why="before its epoch, one for the classifier alone, without a backward pass"
    ),
    "fedntd": Arithmetic(passes=1, why="the received model's logits in each step"),
    "moon": Arithmetic(passes=2, why="two other models' features in each step"),
    "pfedme": Arithmetic(
        steps=3, why="20 batches of 20 examples, five steps each, in place of 500 examples; "
        "small batches take longer per example"
    ),
}  # fmt: skip
"""What methods compute beside training; the others compute nothing that counts."""
