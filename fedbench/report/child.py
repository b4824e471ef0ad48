"""The program that draws, in a process of its own: `fedbench.report.draw` runs this file.

vl-convert is a native library with a JavaScript engine; some texts and any limit on memory make it
end its process. This one imports nothing of fedbench. It reads ``[parent, tasks]`` as JSON from
standard input and writes one line of JSON for each task to standard output as soon as it is done:

- ``{"bundle": CODE}`` becomes ``{"text": SCRIPT}``: Vega, Vega-Lite and Vega-Embed, then ``CODE``;
- ``{"draw": SPEC}`` becomes ``{"svg": TEXT, "png": BASE64}``, two pixels a point;
- a task that raises becomes ``{"error": MESSAGE}``.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any


def main() -> None:
    """Do all tasks of standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what the library prints is no answer
    parent, tasks = json.load(sys.stdin)
    end_with(parent)
    for task in tasks:
        try:
            answer = done(task)
        except Exception as error:
            message = str(error).split("\n    at ")[0]  # then come frames of JavaScript
            answer = {"error": message or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def done(task: dict[str, Any]) -> dict[str, str]:
    """Return the answer to one task."""
    import vl_convert

    if "bundle" in task:
        return {"text": str(vl_convert.javascript_bundle(task["bundle"]))}
    svg = str(vl_convert.vegalite_to_svg(task["draw"]))
    png = bytes(vl_convert.svg_to_png(svg, scale=2))  # what drawing the spec again would give
    return {"svg": svg, "png": base64.b64encode(png).decode()}


def end_with(parent: int) -> None:
    """Leave no core file, and on Linux end when the parent does."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit("the process that wants the pictures has ended")


if __name__ == "__main__":
    main()
