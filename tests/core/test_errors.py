"""Errors are told apart: those that the machine causes may not happen another time."""

from __future__ import annotations

import errno

import pytest
import torch

from fedbench import ConfigError
from fedbench.errors import LISTED, did_you_mean, temporary
from fedbench.executors.pool import WorkerDied


def chained(text: str, cause: BaseException) -> ConfigError:
    error = ConfigError(text)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("unable to write to file </torch_1>: No space left on device (28)"),
        RuntimeError("can't start new thread"),
        Exception("Failed to put object 00ff in object store because it is full."),
        *(OSError(getattr(errno, n), n) for n in ("ENOSPC", "EDQUOT", "EIO", "ENOMEM", "EROFS")),
        WorkerDied("its worker process died 3 times"),
        chained("run can't be written: Disk quota exceeded", OSError(errno.EDQUOT, "")),
    ],
    ids=repr,
)
def test_what_the_machine_causes_is_temporary(error: BaseException) -> None:
    assert temporary(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("wrong"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ConfigError("no memory bank 'out of memory' is installed"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "train.csv"),
        PermissionError(errno.EACCES, "Permission denied", "train.csv"),
        TimeoutError("a plugin's simulated straggler"),
        ConnectionError("a plugin's simulated loss"),
        chained("damaged", ValueError("not JSON")),
    ],
    ids=repr,
)
def test_what_a_method_config_or_data_set_causes_is_not_temporary(error: BaseException) -> None:
    assert not temporary(error)


def test_of_very_many_names_those_that_resemble_it_are_listed() -> None:
    names = [f"plugin_{n:03d}" for n in range(LISTED + 1)]
    assert did_you_mean("plugin_0003", names) == " (did you mean 'plugin_003'?)"
    said = did_you_mean("../x", [*names, "fedx", "x"])
    assert said.startswith(f" ({LISTED + 3} are known, among them fedx, ")
    assert len(said) < 120
    assert did_you_mean("../x", names[:-1]).startswith(" (known: plugin_000, plugin_001, ")
