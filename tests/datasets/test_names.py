"""Names that mean the same: two spellings of one class."""

from __future__ import annotations

import pytest
from fedbench_datasets.names import by_number, compared_by


@pytest.mark.parametrize("name", ["1", "01", "1.0", " 1 ", "1.000e+00", "\ufeff1", "\uff11"])
def test_a_number_is_one_name_however_it_is_written(name: str) -> None:
    assert compared_by(name) == "1"


@pytest.mark.parametrize("name", ["1e2", "1e", "1-2", "1.2.3", "e+1", "0x64"])
def test_codes_that_only_look_like_numbers_are_text(name: str) -> None:
    assert compared_by(name) == name
    assert by_number(name) > by_number("1000")
