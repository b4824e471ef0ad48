"""The program ``fedbench``, also as ``python -m fedbench``."""

from __future__ import annotations

from .cli.leave import guard


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line from here on."""
    guard()
    from .cli import main as commands

    commands(prog_name="fedbench")


if __name__ == "__main__":
    main()
