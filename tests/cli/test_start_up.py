"""A run does not wait for libraries that only reports, searches and notebooks need."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.long
def test_a_run_imports_no_library_of_reports_and_searches(tmp_path, few):
    code = (
        "import sys\n"
        "from fedbench.cli import main\n"
        f"main({['run', 'fedavg', *few, '--quiet']!r}, standalone_mode=False)\n"
        "heavy = {'scipy', 'optuna', 'pandas', 'sqlalchemy', 'jinja2', 'vl_convert', 'IPython'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "HEAVY []"
