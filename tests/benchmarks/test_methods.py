"""What the benchmark of methods repeats, and what its page says about it."""

import pytest
import torch

from fedbench.types import ClientResult, Payload, PerClass
from tests.conftest import make_config

WORDS = {"commit": "c" * 40, "date": "2026-01-02T03:04", "command": ["components.py"]}
MACHINE = {"cores": 2, "processor": "A", "memory": None, "system": "L", "python": "3"}


def runtime_of(registry, tmp_path):
    from fedbench.runtime import Runtime

    def runtime(name):
        config = make_config(registry, name, rounds=3, evaluate_every=3)
        return Runtime(config, registry, tmp_path)

    return runtime


@pytest.mark.parametrize("name", ["fedavg", "scaffold", "fedproto"])
def test_a_turn_and_the_servers_part_are_repeated_from_the_second_round(
    name, load, registry, tmp_path
):
    method = load("methods").Method(runtime_of(registry, tmp_path)(name))
    first, second = method.turn(), method.turn()
    assert first.digests == second.digests
    once, again = method.server(), method.server()
    assert once.round == again.round == 2
    for key, weight in once.weights.items():
        assert torch.equal(weight, again.weights[key])


def test_every_method_that_is_not_refused_has_a_cost(load, registry, tmp_path):
    methods = load("methods")
    make = runtime_of(registry, tmp_path)

    def runtime(name):
        if name == "refused":
            raise methods.ConfigError("not with this model")
        return make(name)

    found, refused = methods.costs(runtime, ["fedavg", "refused", "fedprox"], 1)
    assert refused == {"refused": "not with this model"}
    assert list(found) == ["fedavg", "fedprox"]
    assert all(cost.turn > 0 and cost.server_ms > 0 for cost in found.values())


def test_other_clients_send_the_same_form_with_other_numbers(load):
    rows = PerClass(torch.tensor([3]), torch.ones(1, 2), torch.tensor([7]))
    uploads = {"weights": {"w": torch.ones(2), "n": torch.tensor(5)}, "rows": rows}
    result = ClientResult(0, 1, Payload(uploads, "uploads"), {}, {}, 0.0)
    one, other = (load("methods").like(result, client) for client in (1, 2))
    assert (one.client, other.client) == (1, 2)
    weights = one.uploads.weights()
    assert weights["n"] == 5
    assert 0 < float((weights["w"] - 1).abs().max()) < 0.1
    assert not torch.equal(weights["w"], other.uploads.weights()["w"])
    assert one.uploads.per_class("rows").labels.tolist() == [3]


def test_page_has_a_row_per_method(load):
    row = {"name": "scaffold", "model": {}, "turn": 1.25, "extra_ms": 12.4, "server_ms": 30.6}
    slow = {**row, "name": "moon", "turn": 1.5}
    other = {**row, "name": "dp-fedavg", "model": {"norm": "group"}}
    refused = {"name": "odd", "refused": "not with this model\nmore"}
    part = {"name": "a part", "value": 1.0, "target": 2.0}
    result = {"runs": 9, "method_runs": 3, "machine": MACHINE, "rows": [part], **WORDS}
    page = load("page").components({**result, "methods": [row, other, slow, refused]})
    assert "| scaffold | 1.25 | 1.00 | 1.25 | +12 | 31 |  |" in page
    assert "| dp-fedavg (group norm) | 1.25 | 1.00 | 1.25 | +12 | 31 |  |" in page
    assert "| moon | 1.50 | 1.67 | 0.90 | +12 | 31 | two other models' features" in page
    assert "Over 1.2 times that: scaffold (1.25), dp-fedavg (1.25)." in page
    assert "Not in the table: odd, not with this model\n" in page
    assert "n = 9." in page
    assert "n = 3." in page
    assert "| a part | 1.000 | 2.00 |" in page
    assert "Over the target: nothing." in page
    assert "Methods" not in load("page").components({**result, "methods": []})


def test_a_turn_of_the_parts_is_one_that_core_would_make(load):
    components = load("components")
    found = components.codecs(components.registry(), 1)
    assert set(found) == set(components.CODECS)
    assert min(found.values()) > 0


def test_what_a_turn_should_cost_counts_steps_and_passes(load, registry):
    arithmetic = load("arithmetic")
    assert arithmetic.Arithmetic().turn == 1
    assert arithmetic.Arithmetic(steps=1, passes=3).turn == 3
    assert set(arithmetic.BEYOND) <= set(registry.names("recipe"))


def test_page_without_parts_has_only_the_methods(load):
    row = {"name": "scaffold", "model": {}, "turn": 1.25, "extra_ms": 12.4, "server_ms": 30.6}
    result = {"runs": 0, "method_runs": 9, "machine": MACHINE, "rows": [], **WORDS}
    page = load("page").components({**result, "methods": [row]})
    assert page.startswith("## Methods, n = 9\n")
    assert "## Parts" not in page


def test_page_shows_commands_without_the_paths_of_a_machine(load):
    words = ["speed.py", "--runs", "3", "--json", "/home/me/w1.json", "--short"]
    assert load("page").without_paths(words) == ["speed.py", "--runs", "3", "--short"]
