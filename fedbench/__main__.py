"""The program ``fedbench``, also as ``python -m fedbench``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    # ``python -m`` makes Python look for modules in the current folder first, where a file may have
    # the name of any of them.
    del sys.path[0]

from .cli import leave


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line from here on."""
    leave.guard()
    leave.program = True
    from .cli import main as commands

    commands(prog_name="fedbench")


if __name__ == "__main__":
    main()
