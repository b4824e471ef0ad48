"""The studies' files as modules: they are no package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

STUDIES = Path(__file__).parents[2] / "studies"


def _loaded(place: str) -> Iterator[ModuleType]:
    spec = util.spec_from_file_location(Path(place).stem, STUDIES / place)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = util.module_from_spec(spec)
    sys.path.insert(0, str((STUDIES / place).parent))  # as for a program: it may import the others
    spec.loader.exec_module(module)
    sys.path.pop(0)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def inversion() -> Iterator[ModuleType]:
    yield from _loaded("inversion/inversion.py")


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    yield from _loaded("fedhpro/fedbench_fedhpro_study.py")


@pytest.fixture(scope="module")
def zoo() -> Iterator[ModuleType]:
    yield from _loaded("zoo/zoo.py")


@pytest.fixture(scope="module")
def by_round() -> Iterator[ModuleType]:
    yield from _loaded("fedhpro/by_round.py")


@pytest.fixture(scope="module")
def by_setting() -> Iterator[ModuleType]:
    yield from _loaded("fedhpro/by_setting.py")


@pytest.fixture(scope="module")
def tuned() -> Iterator[ModuleType]:
    yield from _loaded("zoo/tuned.py")


@pytest.fixture(scope="module")
def diagnosed() -> Iterator[ModuleType]:
    yield from _loaded("fedhpro/diagnosed.py")
