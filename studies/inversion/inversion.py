"""What a server can see in what FedHPro's clients upload: gradient inversion on `digits`.

    python studies/inversion/inversion.py --rounds 5 --out inversion

The server is honest but curious: it follows the protocol, knows the weights that it sent, the
class and the number n of its examples, and searches for images that would have caused one client's
upload. Three uploads are attacked:

- ``weights``: the gradient of n examples with respect to all parameters, which is what the weights
  after a single step of SGD reveal; more local steps make the attack harder;
- ``classifier gradients``: the class's gradients (dW, db) of the classifier, for recalibration;
- ``class gradients``: the class's gradient in feature space, d numbers, for the matching.

The attack is that of Geiping et al. (Inverting Gradients, NeurIPS 2020): Adam with the signs of the
pixels' derivatives; the loss is one minus the cosine of the two gradients, and total variation.
Here the cosine is taken for each parameter by itself, and the mean counts: with the cosine of the
whole, the large layers decide, and no image was found. The noise is Gaussian; its norm is expected
to be the given share of the upload's. Class batches are not augmented here, which helps the attack.

Each reconstruction is compared with its closest true image: by the correlation of their pixels,
which ignores brightness and contrast as the eye does, and by PSNR. So is the mean image of the
class on other clients, which is what the server could guess without the upload.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from fedbench_fedhpro.hyper_prototypes import class_gradients
from fedbench_fedhpro.matching import residual
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import save_image

import fedbench
from fedbench.config.resolve import resolve
from fedbench.engine.run import Run
from fedbench.pipeline import Pipeline
from fedbench.types import forward

Uploaded = Sequence[Tensor]
"""Tensors of any shapes."""

Upload = Callable[[nn.Module, Tensor, Tensor], Uploaded]
"""From a model, model inputs (n, ...) and labels (n,) to what is uploaded."""

SHOWN = 8
"""Images that are searched for at most; with more examples, several share one."""


def of_weights(model: nn.Module, x: Tensor, y: Tensor) -> Uploaded:
    """Return the gradient of the mean cross-entropy with respect to all parameters."""
    loss = F.cross_entropy(forward(model, x).logits, y)
    return torch.autograd.grad(loss, list(model.parameters()), create_graph=True)


def of_classifier(model: nn.Module, x: Tensor, y: Tensor) -> Uploaded:
    """Return the gradient of the mean cross-entropy with respect to the classifier, dW and db."""
    layer, features = classifier(model), forward(model, x).features
    errors = residual(features, y, layer.weight, layer.bias)
    return errors.T @ features / len(y), errors.mean(dim=0)


def of_features(model: nn.Module, x: Tensor, y: Tensor) -> Uploaded:
    """Return the class gradient in feature space, d numbers; see FedHPro's `class_gradients`."""
    layer, features = classifier(model), forward(model, x).features
    return (class_gradients(features, y, layer.weight, layer.bias).values.flatten(),)


def classifier(model: nn.Module) -> nn.Linear:
    """Return the linear layer that maps features to logits."""
    return cast(nn.Linear, model.classifier)


UPLOADS: dict[str, Upload] = {
    "weights": of_weights,
    "classifier gradients": of_classifier,
    "class gradients": of_features,
}


@dataclass(frozen=True)
class Found:
    """One attack.

    Attributes:
        upload: what was attacked.
        examples: n, how many examples caused the upload.
        noise: the noise's share of the upload's norm.
        label: the class.
        correlation: the highest of a reconstruction's pixels and a true image's.
        psnr: the highest of a reconstruction and a true image, in dB.
        guess: the correlation, with the mean image of the class on other clients as reconstruction.
        guess_psnr: the PSNR of the same, in dB.
        loss: one minus the mean cosine at the end.
        seconds: how long the attack took.
    """

    upload: str
    examples: int
    noise: float
    label: int
    correlation: float
    psnr: float
    guess: float
    guess_psnr: float
    loss: float
    seconds: float


class Server:
    """A server in the middle of a run, and the images of its clients.

    Args:
        rounds: how many rounds of FedHPro it has completed.
        seed: of the run.
    """

    def __init__(self, rounds: int, seed: int) -> None:
        registry = fedbench.discover()
        sets = ["data=digits", f"rounds={rounds}", f"seed={seed}"]
        run = Run(resolve(registry, "fedhpro", sets=sets), registry=registry)
        run.run()
        assert run.state
        self.runtime = run.runtime
        self.model = self.runtime.model.eval()
        self.model.load_state_dict(run.state.weights)
        self.prepare = Pipeline(
            self.runtime.plugins, self.runtime.device, lambda name: torch.Generator()
        )

    def images(self, client: int, label: int, number: int) -> Tensor:
        """Return a client's first images of a class, (n, channels, h, w) in [0, 1]."""
        data = self.runtime.client_data(client)
        return data.inputs[data.labels == label][:number].float() / 255

    def guess(self, client: int, label: int) -> Tensor:
        """Return the mean image of a class on all other clients, (1, channels, h, w)."""
        others = (k for k in range(len(self.runtime.parts)) if k != client)
        return torch.cat([self.images(k, label, 1000) for k in others]).mean(dim=0, keepdim=True)

    def upload(self, kind: str, images: Tensor, label: int) -> Uploaded:
        """Return what these images cause to be uploaded."""
        labels = torch.full((len(images),), label)
        return UPLOADS[kind](self.model, self.prepare(images, False), labels)

    def attack(
        self, kind: str, target: Uploaded, label: int, like: Tensor, steps: int, tv: float
    ) -> tuple[Tensor, float]:
        """Search for images that cause an upload.

        Args:
            kind: the kind of upload.
            target: the upload.
            label: the class.
            like: what is searched for has this shape, (k, channels, h, w).
            steps: of Adam.
            tv: weight of the total variation.

        Returns:
            the images, and the distance of what they cause from the upload.
        """
        start = torch.rand(like.shape, generator=torch.Generator().manual_seed(0))
        x = start.requires_grad_()
        adam = torch.optim.Adam([x], lr=0.1)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for _ in range(steps):
            gap = distance(self.upload(kind, x, label), target)
            (slope,) = torch.autograd.grad(gap + tv * variation(x), x)
            x.grad = slope.sign()
            adam.step()
            decay.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        gap = distance(self.upload(kind, x, label), target)
        return x.detach(), float(gap.detach())


def distance(found: Uploaded, target: Uploaded) -> Tensor:
    """Return one minus the mean cosine of the tensors of two uploads, a scalar."""
    pairs = zip(found, target, strict=True)
    cosines = [F.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs]
    return 1 - torch.stack(cosines).mean()


def variation(x: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels, a scalar."""
    down, right = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
    return down.abs().mean() + right.abs().mean()


def psnr(found: Tensor, true: Tensor) -> float:
    """Return the highest peak signal-to-noise ratio of a found and a true image, in dB.

    Args:
        found: (k, channels, h, w) in [0, 1].
        true: (n, channels, h, w) in [0, 1].
    """
    errors = (found[:, None] - true[None]).square().flatten(2).mean(dim=2)
    return -10 * math.log10(max(float(errors.min()), 1e-12))


def correlation(found: Tensor, true: Tensor) -> float:
    """Return the highest Pearson correlation of the pixels of a found and a true image.

    Args:
        found: (k, channels, h, w).
        true: (n, channels, h, w).
    """
    a, b = (x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (found, true))
    return float(F.cosine_similarity(a[:, None], b[None], dim=2).max())


def noisy(upload: Uploaded, share: float, rng: torch.Generator) -> Uploaded:
    """Return an upload with Gaussian noise whose norm is expected to be a share of the upload's."""
    size = sum(part.numel() for part in upload)
    norm = sum(float(part.square().sum()) for part in upload) ** 0.5
    scale = share * norm / size**0.5
    return [part + scale * torch.randn(part.shape, generator=rng) for part in upload]


def carry_out(given: argparse.Namespace) -> list[Found]:
    """Carry out all attacks; write a picture and the numbers after each group."""
    server, found = Server(given.rounds, given.seed), list[Found]()
    given.out.mkdir(parents=True, exist_ok=True)
    for kind in UPLOADS:
        rows: list[Tensor] = []
        for number in given.examples:
            for noise in given.noise:
                for label in given.labels:
                    true = server.images(0, label, number)
                    guess = server.guess(0, label)
                    rng = torch.Generator().manual_seed(label)
                    upload = [part.detach() for part in server.upload(kind, true, label)]
                    target = noisy(upload, noise, rng)
                    began = time.monotonic()
                    images, gap = server.attack(
                        kind, target, label, true[:SHOWN], given.steps, given.tv
                    )
                    seconds = time.monotonic() - began
                    scores = {
                        "correlation": correlation(images, true),
                        "psnr": psnr(images, true),
                        "guess": correlation(guess, true),
                        "guess_psnr": psnr(guess, true),
                    }
                    found.append(
                        Found(kind, number, noise, label, **scores, loss=gap, seconds=seconds)
                    )
                    rows += [true[:1], images[:1]]
        name = kind.replace(" ", "-")
        save_image(torch.cat(rows), given.out / f"{name}.png", nrow=2 * len(given.labels))
        show(found[-len(rows) // 2 :])
        write(found, given)
    return found


def show(found: Sequence[Found]) -> None:
    """Print the means over the classes."""
    for key in dict.fromkeys((one.upload, one.examples, one.noise) for one in found):
        those = [one for one in found if (one.upload, one.examples, one.noise) == key]
        names = ("correlation", "guess", "psnr", "guess_psnr", "loss")
        mean = {n: statistics.mean(getattr(one, n) for one in those) for n in names}
        print(
            f"{key[0]:<21} n = {key[1]:<4} noise {key[2]:<5g} correlation "
            f"{mean['correlation']:.2f} (guess {mean['guess']:.2f}), PSNR {mean['psnr']:.1f} dB "
            f"(guess {mean['guess_psnr']:.1f}), distance {mean['loss']:.4f}, {len(those)} classes",
            flush=True,
        )


def write(found: Sequence[Found], given: argparse.Namespace) -> None:
    """Write all numbers, with the command and the machine."""
    result = {
        "command": ["inversion.py", *given.words],
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "attacks": [asdict(one) for one in found],
    }
    (given.out / "inversion.json").write_text(json.dumps(result, indent=1) + "\n")


def numbers(text: str) -> list[int]:
    """Read whole numbers with commas."""
    return [int(number) for number in text.split(",")]


def shares(text: str) -> list[float]:
    """Read numbers with commas."""
    return [float(number) for number in text.split(",")]


def main(words: Sequence[str] | None = None) -> None:
    """Carry out the attacks that the command line describes."""
    words = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds before; default 5")
    parser.add_argument("--seed", type=int, default=0, help="of the run; default 0")
    parser.add_argument("--labels", type=numbers, default=[0, 1, 2, 3, 4], help="default 0 to 4")
    parser.add_argument("--examples", type=numbers, default=[1, 8], help="n; default 1,8")
    parser.add_argument("--noise", type=shares, default=[0.0, 0.01, 0.1], help="default 0,0.01,0.1")
    parser.add_argument("--steps", type=int, default=800, help="of the attack; default 800")
    parser.add_argument("--tv", type=float, default=0.2, help="weight of the total variation")
    parser.add_argument("--out", type=Path, default=Path("inversion"), metavar="DIR")
    given = parser.parse_args(words)
    given.words = words
    carry_out(given)


if __name__ == "__main__":
    main()
