"""Write the reference pages before a build, and adapt all pages to the site as they are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from reference import pages

from fedbench.errors import FedbenchError
from fedbench.plugins.discovery import discover


def write(app: Any) -> None:
    """Write the pages that have changed; delete those that no longer exist."""
    registry = discover()
    if registry.failures:
        raise FedbenchError(f"packages that cannot be loaded: {registry.failures}")
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    found = pages(registry)
    for old in folder.glob("*.md"):
        if old.name not in found:
            old.unlink()
    for name, text in found.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def adapt(app: Any, name: str, source: list[str]) -> None:
    """Point links that leave this folder to pages of the site; show the file names of blocks."""
    up = "../" * name.count("/")
    text = source[0].replace("../datasets/README.md)", f"{up}reference/digits-sources.md)")
    named = r"^```python (\S+\.py)$"
    source[0] = re.sub(named, r"```{code-block} python\n:caption: \1\n", text, flags=re.MULTILINE)


def setup(app: Any) -> dict[str, bool]:
    """Connect `write` and `adapt` to Sphinx's events."""
    app.connect("builder-inited", write)
    app.connect("source-read", adapt)
    return {"parallel_read_safe": True}
