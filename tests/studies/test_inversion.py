"""The attack on uploads: what it computes, against autograd and by hand; and one short attack."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 4)
        self.classifier = nn.Linear(4, 3)

    def features(self, x):
        return torch.tanh(self.body(x.flatten(1)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Small()


def test_classifier_gradients_are_autograds(inversion, model):
    x, y = torch.rand(5, 6), torch.full((5,), 2)
    loss = F.cross_entropy(model.classifier(model.features(x)), y)
    expected = torch.autograd.grad(loss, list(model.classifier.parameters()))
    torch.testing.assert_close(inversion.of_classifier(model, x, y), expected)
    torch.testing.assert_close(inversion.of_weights(model, x, y)[-2:], expected)


def test_class_gradients_are_those_that_a_client_uploads(inversion, model):
    x, y = torch.rand(5, 6), torch.full((5,), 2)
    z = model.features(x).detach().requires_grad_()
    loss = F.cross_entropy(model.classifier(z), y)
    (gradient,) = torch.autograd.grad(loss, z)
    (found,) = inversion.of_features(model, x, y)
    torch.testing.assert_close(found, gradient.mean(dim=0))


def test_psnr_is_that_of_the_closest_pair(inversion):
    true = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    assert inversion.psnr(torch.full((1, 1, 2, 2), 0.9), true) == pytest.approx(20, abs=1e-3)
    assert inversion.psnr(true, true) == pytest.approx(120)


def test_correlation_ignores_brightness_and_contrast(inversion):
    one = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    both = torch.cat([1 - one, one])
    assert inversion.correlation(0.2 + one / 2, both) == pytest.approx(1)
    assert inversion.correlation(0.2 - one / 2, one) == pytest.approx(-1)


def test_the_distance_counts_each_tensor_once(inversion):
    small, large = torch.tensor([1.0, 0.0]), torch.ones(100)
    assert inversion.distance([small, large], [small, large]) == pytest.approx(0, abs=1e-6)
    assert inversion.distance([small, large], [-small, large]) == pytest.approx(1, abs=1e-6)


def test_noise_has_its_share_of_the_uploads_norm(inversion):
    upload = [torch.ones(100, 50), torch.ones(5_000)]
    changed = inversion.noisy(upload, 0.1, torch.Generator().manual_seed(0))
    added = torch.cat([(a - b).flatten() for a, b in zip(changed, upload, strict=True)])
    assert float(added.norm()) == pytest.approx(0.1 * 100, rel=0.05)
    same = inversion.noisy(upload, 0.0, torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(same, upload, strict=True))


def test_variation_is_zero_only_without_edges(inversion):
    assert inversion.variation(torch.ones(1, 1, 3, 3)) == 0
    edge = torch.zeros(1, 1, 2, 2)
    edge[..., 1] = 1
    assert inversion.variation(edge) == pytest.approx(1)


@pytest.mark.long
def test_an_attack_comes_near_each_upload_and_weights_reveal_most(inversion, tmp_path):
    words = ["--rounds", "1", "--labels", "3", "--examples", "1", "--noise", "0", "--steps", "150"]
    inversion.main([*words, "--out", str(tmp_path)])
    found = json.loads((tmp_path / "inversion.json").read_text())["attacks"]
    assert [one["upload"] for one in found] == list(inversion.UPLOADS)
    assert all(one["loss"] < 0.3 for one in found)
    assert found[0]["correlation"] > max(one["correlation"] for one in found[1:])
    assert all((tmp_path / f"{kind.replace(' ', '-')}.png").is_file() for kind in inversion.UPLOADS)
