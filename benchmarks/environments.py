"""A virtual environment for each peer, so that the peers' pinned requirements cannot conflict."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


class NotInstalled(Exception):
    """A peer could not be installed."""


@dataclass(frozen=True)
class Environment:
    """The requirements to install and the packages whose versions to report."""

    requirements: tuple[str, ...]
    packages: tuple[str, ...]

    def make(self, name: str, folder: Path, own_torch: bool) -> str:
        """Create the environment if it is missing, and return the path of its Python.

        The peer and what it requires are installed into it. PyTorch comes from the environment of
        this process, through a path file that is searched last; with ``own_torch`` the same release
        is installed into the peer's environment too (several gigabytes each).

        Raises:
            NotInstalled: with the last lines of the installer's output.
        """
        home = folder / (f"{name}-own-torch" if own_torch else name)
        python = home / "bin" / "python"
        if (home / "complete").exists():
            return str(python)
        print(f"{name}: installing {' '.join(self.requirements)} into {home}", flush=True)
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        _call([sys.executable, "-m", "venv", "--clear", str(home)], env)
        own = [f"{package}=={version(package)}" for package in ("torch", "torchvision")]
        if not own_torch:
            inside = home / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
            (inside / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _call([*install, *self.requirements, *(own if own_torch else ())], env)
        (home / "complete").touch()
        return str(python)


def _call(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        words = " ".join(errors or done.stderr.splitlines()[-3:])
        raise NotInstalled(f"{' '.join(command[2:4])} failed: {words[-600:]}")
