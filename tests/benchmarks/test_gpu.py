"""The GPU benchmark: its CPU form, what it says of a missing GPU, memory, digests, its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Load = Callable[[str], ModuleType]
GIB = 2**30


@pytest.mark.long
def test_its_cpu_form_measures_every_contestant(load: Load, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    variants = "fedavg" + ",fedavg-bf16" * torch.ops.mkldnn._is_mkldnn_bf16_supported()
    words = ["--device", "cpu", "--short", "--runs", "1", "--at-once", "2", "--against", ""]
    words += ["--workloads", "w1"]
    file = tmp_path / "gpu.json"
    assert load("gpu").main([*words, "--variants", variants, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    names = [f"fedbench {one}" for one in variants.split(",")]
    names = ["plain", "plain, strict", *names, "fedbench fedavg, 2 at once"]
    one = result["workloads"]["w1"]
    assert list(one["contestants"]) == names
    assert one["failed"] == one["not_installed"] == {}
    found = {
        name: {run["weights_sha256"] for run in entry["runs"]}
        for name, entry in one["contestants"].items()
    }
    assert found["plain"] == {None}
    assert found["fedbench fedavg"] == found["fedbench fedavg, 2 at once"], "on a CPU, the same"
    assert one["digests"][0] == "fedbench fedavg: one digest of the final weights, n = 1"
    assert one["digests"][-1].endswith("the same digests as fedbench fedavg")
    text = load("page").introduction(result) + load("page").gpu(result)
    assert "There are no GPU measurements yet" in text
    assert "Device: none, on a CPU" in text
    assert "Tiny sizes" in text


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_ends_it_before_anything_runs(load: Load) -> None:
    with pytest.raises(SystemExit) as error:
        load("gpu").main(["--device", "cuda"])
    first, second = str(error.value).splitlines()
    assert first.startswith("gpu.py: device 'cuda' cannot be used here: ")
    assert "--device cpu --short" in second


def given(load: Load, *words: str) -> Any:
    return load("gpu").arguments([*words, "--against", ""])


def test_clients_at_once_share_one_gpu(load: Load, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    contestants, _ = load("gpu").line_up(given(load, "--at-once", "3"), "GPU-1")
    commands = {
        one.name: one.command(load("workloads").SHORT["w1"], 2, tmp_path) for one in contestants
    }
    assert {one.gpu for one in contestants} == {"GPU-1"}
    assert commands["plain"][-1] == "cuda"
    assert commands["plain, strict"][-2:] == ["cuda", "strict"]
    several = commands["fedbench fedavg, 3 at once"]
    for word in ("device=cuda", "executor=ray", "executor.workers=3"):
        assert word in several
    assert "executor.gpus_per_client=0.3333" in several
    assert "precision=bf16" in commands["fedbench fedavg-bf16"]


@pytest.mark.parametrize("clients", range(1, 33))
def test_shares_of_a_gpu_leave_room_for_all(clients: int, load: Load) -> None:
    share = load("workloads").gpu_share(clients, "cuda")
    assert clients * share <= 1
    assert int(1 / share) == clients, "as Ray's users count the places"
    assert load("workloads").gpu_share(clients, "cpu") == 0


def test_memory_of_a_gpu_is_what_rose_while_it_was_read(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([3 * GIB, 4 * GIB, 9 * GIB, 5 * GIB])
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID={"GPU-1": 1}.__getitem__,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=next(readings)),
        NVMLError=RuntimeError,
    )
    monkeypatch.setattr(load("gpu_memory"), "pynvml", fake)
    measure = load("measure")
    monkeypatch.setattr(measure, "pss", lambda processes: 1)
    sampler = measure.Sampler("GPU-1")
    pauses = iter([False, False, False, True])
    sampler._done = SimpleNamespace(wait=lambda pause: next(pauses))
    sampler.run()
    assert sampler.gpu_peak == 6 * GIB
    assert measure.Sampler().gpu_peak is None


def test_memory_of_a_gpu_is_unknown_without_its_library_or_driver(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise RuntimeError("Driver Not Loaded")

    memory = load("gpu_memory")
    monkeypatch.setattr(memory, "pynvml", None)
    assert memory.used("GPU-1") is None
    monkeypatch.setattr(memory, "pynvml", SimpleNamespace(nvmlInit=missing, NVMLError=RuntimeError))
    assert memory.used("GPU-1") is None
    assert memory.used(None) is None


def measured(*digests: str) -> dict[str, Any]:
    return {"runs": [{"weights_sha256": digest} for digest in digests]}


def test_digests_are_stated_equal_or_not(load: Load) -> None:
    several = "fedbench fedavg, 4 at once"
    table = {"plain": measured(None), "fedbench fedavg": measured("a", "a")}  # type: ignore[arg-type]
    lines = load("gpu").digests({"at_once_of": "fedbench fedavg", "contestants": table})
    assert lines == ["fedbench fedavg: one digest of the final weights, n = 2"]
    table[several] = measured("a", "b")
    lines = load("gpu").digests({"at_once_of": "fedbench fedavg", "contestants": table})
    assert lines[1:] == [
        f"{several}: 2 different digests of the final weights, n = 2",
        f"{several}: not the same digests as fedbench fedavg",
    ]


def test_the_page_says_what_was_measured_on_a_gpu(load: Load, tmp_path: Path) -> None:
    row = {"seconds_per_round": 1.5, "first_round": 9.0, "pss_peak": 2e9, "gpu_peak": 3e9}
    one = {"summary": {"plain": {**row, "gpu_peak": None}, "fedbench fedavg": row}, "failed": {}}
    one |= {"digests": ["fedbench fedavg: equal"], "not_installed": {"flower": "no network\nmore"}}
    machine = {"cores": 2, "memory": None, "processor": "P", "system": "S", "python": "3"}
    result = {"command": ["gpu.py"], "machine": machine, "commit": "c", "date": "2026", "runs": 2}
    result |= {"device": "cuda", "short": False, "at_once": 4, "workloads": {"w1": one}}
    device = {"name": "NVIDIA X", "memory": 80 * GIB, "torch": "2.14", "cuda": "13.0"}
    result |= {"accelerator": device, "in_use_before": 2e9}
    (tmp_path / "gpu.json").write_text(json.dumps(result))
    page = load("page")
    page.main(["--gpu", str(tmp_path / "gpu.json"), "--out", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text()
    assert "no GPU measurements" not in text
    assert "The section on one GPU was measured on a\nGPU, everything else on CPUs." in text
    assert "Device: NVIDIA X, 80 GiB (torch 2.14, CUDA 13.0). **2000 MB of the GPU were" in text
    assert "| plain | 1.50 | - | 9.0 | - | 2000 |" in text
    assert "| fedbench fedavg | 1.50 | - | 9.0 | 3000 | 2000 |" in text
    assert "- fedbench fedavg: equal\n" in text
    assert "Not in the table: flower, no network\n" in text
    page.main(["--out", str(tmp_path / "page.md")])
    assert "nobody has run\nfedbench on a GPU" in (tmp_path / "page.md").read_text()
