"""What is read back lies in the order in which it was written; safetensors alone forgets it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from fedbench.store.client_states import ClientStates
from fedbench.store.tensor_file import from_bytes, to_bytes

NAMES = [f"{n * 7 % 20}.w" for n in range(20)]
TENSORS = {name: torch.full((n % 3,), float(n)) for n, name in enumerate(NAMES)}


def test_bytes_keep_the_order_and_the_bits() -> None:
    for _ in range(3):
        found = from_bytes(to_bytes(TENSORS))
        assert list(found) == NAMES
        assert all(torch.equal(found[name], TENSORS[name]) for name in NAMES)


def test_a_file_without_an_order_is_read_in_the_same_one_each_time() -> None:
    data = save(TENSORS)
    orders = {tuple(from_bytes(data)) for _ in range(5)}
    assert len(orders) == 1
    assert sorted(orders.pop()) == sorted(NAMES)


def test_an_order_of_other_tensors_is_damage() -> None:
    data = save(TENSORS, metadata={"order": '["a"]'})
    with pytest.raises(ValueError, match="does not name the tensors of the file"):
        from_bytes(data)


def test_states_of_clients_in_files_keep_their_order(tmp_path: Path) -> None:
    states = ClientStates(tmp_path, limit=0)
    states.stage(3, {"kept": TENSORS}, 1)
    states.commit(1)
    assert list(tmp_path.iterdir())
    kept = states[3]["kept"]
    assert isinstance(kept, dict)
    assert list(kept) == NAMES
