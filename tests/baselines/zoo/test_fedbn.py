"""FedBN: which entries of a model stay with the client."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.fedbn import norm_keys
from torch import nn

ALL = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def under(name: str) -> set[str]:
    return {f"{name}.{key}" for key in ALL}


class Block(nn.Module):
    """A residual block whose shortcut's batch norm has no "bn" in its name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn1 = nn.BatchNorm2d(3)
        self.shortcut = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))


def test_all_of_batch_norm_stays_whatever_its_name_and_depth() -> None:
    model = nn.Sequential(Block(), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    keys = norm_keys(model)
    assert keys == under("0.bn1") | under("0.shortcut.1") | under("2")
    assert keys <= model.state_dict().keys()


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
def test_every_kind_of_batch_norm_counts(norm: type[nn.Module]) -> None:
    assert norm_keys(nn.Sequential(norm(4))) == under("0")  # type: ignore[call-arg]


def test_other_normalisation_is_averaged() -> None:
    layers = [nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4, affine=True)]
    tracking = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    assert norm_keys(nn.Sequential(*layers, tracking)) == frozenset()


def test_a_model_without_batch_norm_has_no_such_keys() -> None:
    named = nn.Sequential()
    named.add_module("bn", nn.Linear(2, 2))  # the name says nothing
    assert norm_keys(named) == frozenset()


def test_only_what_a_batch_norm_has() -> None:
    bare = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, affine=False))
    bare[1] = nn.BatchNorm1d(3, track_running_stats=False)
    assert norm_keys(bare) == {
        *("0.running_mean", "0.running_var", "0.num_batches_tracked"),
        *("1.weight", "1.bias"),
    }


def test_a_batch_norm_that_is_the_whole_model() -> None:
    assert norm_keys(nn.BatchNorm1d(2)) == set(ALL)


def test_a_shared_batch_norm_counts_under_all_its_names() -> None:
    norm = nn.BatchNorm1d(2)
    model = nn.Sequential(norm, nn.Linear(2, 2), norm)
    assert norm_keys(model) == under("0") | under("2")


def test_training_changes_none_of_the_other_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(torch.randn(8, 3))
    changed = {k for k, v in model.state_dict().items() if not v.equal(before[k])}
    assert changed == norm_keys(model) - {"1.weight", "1.bias"}
