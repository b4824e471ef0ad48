"""The variants of FedHPro's study: against plain computations, and in short runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from fedbench_fedhpro.losses import hpal, hpcl
from torch.nn import functional as F

from fedbench.engine.run import Run
from fedbench.study.grid import make_grid, plan
from fedbench.types import PerClass
from tests.conftest import make_config

FOLDER = Path(__file__).parents[2] / "studies" / "fedhpro"
GRIDS = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture
def installed(registry, study):
    if ("plugin", "last_client") not in registry.entries:  # the package may be installed
        registry.add(study, "fedbench-fedhpro-study")
    return registry


def tiny(registry, method, **given):
    return make_config(registry, method, **given)


def test_prototypes_act_as_hyper_prototypes_would(study):
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(3, 2, 5, generator=generator)
    rows = PerClass(torch.arange(3).repeat_interleave(2), s.flatten(0, 1), torch.ones(6).long())
    z, y = torch.randn(4, 5, generator=generator), torch.tensor([0, 2, 2, 1])
    anchors, known = study.class_rows(rows, 3, unit=True)
    means, _ = study.class_rows(rows, 3, unit=False)
    assert known.all()
    torch.testing.assert_close(study.contrast(z, y, anchors, 0.1, 0.3), hpcl(z, y, s, 0.1, 0.3))
    near = study.consistency(z, y, F.normalize(means, dim=1))
    torch.testing.assert_close(near, hpal(z, y, s))


def test_a_class_without_a_prototype_is_unknown(study):
    rows = PerClass(torch.tensor([2]), torch.ones(1, 4), torch.tensor([3]))
    values, known = study.class_rows(rows, 3, unit=False)
    assert known.tolist() == [False, False, True]
    assert values.tolist() == [[0.0] * 4, [0.0] * 4, [1.0] * 4]


@pytest.mark.parametrize("kind", ["means", "clusters"])
def test_prototypes_are_anchors_from_the_second_round_on(installed, kind):
    run = Run(tiny(installed, f"fedhpro-{kind}"), registry=installed)
    first, second = run.rounds()
    terms = {"loss.hpcl", "loss.hpal"}
    assert not terms & first.metrics.keys(), sorted(first.metrics)
    assert terms <= second.metrics.keys()
    assert second.bytes_down["study.prototypes"] > 0


def test_the_last_clients_weights_are_the_global_ones(study):
    class Result:
        def __init__(self, client):
            self.client, self.uploads = client, self

        def weights(self):
            return {"w": torch.tensor(float(self.client))}

    found = study.LastClient().aggregate(results=iter(map(Result, (0, 3, 7))))
    assert found == {"w": torch.tensor(7.0)}


@pytest.mark.long
@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_every_grid_can_be_planned(installed, file, tmp_path):
    grid = make_grid(file, {"seeds": 1}, "test")
    assert len(plan(installed, grid, tmp_path)) >= len(grid.methods)
    assert yaml.safe_load(file.read_text())["methods"]
