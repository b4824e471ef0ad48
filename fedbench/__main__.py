"""``python -m fedbench``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="fedbench")
