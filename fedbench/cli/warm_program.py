"""A warm parent as a program of its own: ``python -m fedbench.cli.warm_program FD``.

FD is the descriptor of its end of the socket, see `fedbench.cli.warm`.
"""

from __future__ import annotations

import socket
import sys

from . import leave


def main() -> None:
    """Import everything, then serve the study."""
    leave.guard()
    control = socket.socket(fileno=int(sys.argv[1]))
    from ..plugins.discovery import discover
    from .app import main as commands
    from .warm import serve

    serve(control, discover(), commands)


if __name__ == "__main__":
    main()
