"""check_origin.py FOLDER MODULE...: fail unless every module is imported from inside FOLDER."""

import sys
from importlib import import_module
from pathlib import Path

folder = Path(sys.argv[1]).resolve()
for name in sys.argv[2:]:
    found = Path(str(import_module(name).__file__)).resolve()
    assert found.is_relative_to(folder), f"{name} is imported from {found}, not from {folder}"
print(f"imported from {folder}: {', '.join(sys.argv[2:])}")
