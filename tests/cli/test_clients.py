"""What is printed when clients hold data out, and when not every round is scored."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from fedbench.config.model import Clients
from fedbench.interface.runs import too_small
from fedbench.splits import HeldOut

HELD = ["--set", "clients.test=0.2", "--set", "clients.validation=0.2"]


def test_each_population_and_split_has_a_table_that_says_what_was_scored(fedbench, few):
    done = fedbench("run", "fedavg", *few, *HELD, "--out", "held")
    assert done.exit_code == 0, done.output
    for split in ("test", "validation"):
        assert f"the global model, {split} data by domain" in done.stdout
        assert f"the global model, {split} data held out by each client" in done.stdout
    result = json.loads(Path("held/result.json").read_text())
    (over_clients,) = [
        r for r in result["others"] if (r["population"], r["split"]) == ("clients", "test")
    ]
    rows = {"by examples": "mean", "plain mean": "plain", "worst tenth": "worst"}
    part = done.stdout.partition("test data held out by each client")[2]
    for label, key in rows.items():
        (line,) = [line for line in part.split("validation data")[0].splitlines() if label in line]
        assert line.split()[-1] == f"{100 * over_clients[key]:.2f}"
    assert re.search(r"besides, for clients' scores: \d+\.\d s\n", done.stdout)
    shown = fedbench("show", "held").stdout
    for name in ("", ", over clients", ", validation data", ", validation data, over clients"):
        assert re.search(rf"^accuracy, classifier inference{name} *$", shown, re.MULTILINE)


def test_a_method_with_models_of_clients_says_so(fedbench, few):
    done = fedbench("run", "fedproto-aaai", *few, "--quiet")
    assert "the clients' own models, test data by domain" in done.stdout
    assert "besides, for clients' scores: " in done.stdout


def test_a_round_that_is_not_scored_has_a_dash(fedbench, few):
    done = fedbench("run", "fedavg", *few, "--rounds", "3", "--set", "evaluate_every=2")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if line.startswith("round ")]
    assert [line.split()[3] == "-" for line in lines] == [True, False, False]
    shown = fedbench("show", "runs/fedavg-digits-s0")
    assert shown.exit_code == 0, shown.output


def test_clients_that_are_too_small_are_named_in_one_line():
    empty, one = torch.tensor([]).long(), torch.tensor([3])
    held = HeldOut([one] * 14, {"test": [empty] * 12 + [one] * 2, "validation": [one] * 14})
    assert list(too_small(held, Clients(validation=0.5, test=0.05))) == [
        "clients.test=0.05 is no example for 12 of 14 clients, which have no test score: "
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    ]


@pytest.mark.long
def test_a_run_names_clients_that_are_too_small_once(fedbench, few):
    few = [word for word in few if "domains" not in word]
    few.remove("--set")
    split = ["--with", "dirichlet", "--set", "dirichlet.clients=60", "--set", "dirichlet.alpha=0.1"]
    flags = [*few, *split, "--set", "clients.test=0.03", "--rounds", "2"]
    done = fedbench("run", "fedavg", *flags)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("clients.test=0.03 is no example for ") == 1
