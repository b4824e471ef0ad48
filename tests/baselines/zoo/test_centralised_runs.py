"""Centralised training: one client with exactly what all clients of the partition hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedbench import hookimpl


@dataclass(frozen=True, eq=False)
class Few:
    """Three clients that hold a few examples each; most examples are left out."""

    @hookimpl
    def partition(self):
        return [torch.tensor([40, 3]), torch.tensor([7, 8, 9]), torch.tensor([1, 60, 20, 5])]


def test_the_centralised_client_has_exactly_the_union(add, run_tiny):
    add(few=Few)
    run = run_tiny("centralised", rounds=1, extra={"few": {}}, without=["domains"])
    (part,) = run.runtime.parts
    assert part.tolist() == [1, 3, 5, 7, 8, 9, 20, 40, 60]
    assert run.history[0].clients == [0]


def test_centralised_training_goes_with_any_method_and_place_among_the_plugins(run_tiny):
    run = run_tiny("fedprox", rounds=2, extra={"centralised": {}})
    first = run_tiny("centralised", rounds=2)
    assert len(run.runtime.parts) == len(first.runtime.parts) == 1
    alone = run_tiny("local", rounds=2, extra={"centralised": {}})
    assert alone.runtime.parts[0].equal(first.runtime.parts[0])
    assert len(alone.runtime.parts[0]) == 72
