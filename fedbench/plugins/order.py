"""The order of a run's plugins, checked against what their classes state about their place."""

from __future__ import annotations

from collections.abc import Sequence

from .facts import PluginFacts, facts

INPUTS = {"pixels": "pixels in [0, 1]", "normalised": "normalised values"}
"""What messages call the inputs that a transform expects or produces."""


def misplaced(plugins: Sequence[tuple[str, type]]) -> str | None:
    """Return which plugin is in the wrong place and where it belongs; ``None`` if none is.

    Args:
        plugins: (name, class) in the order in which their hooks are called.
    """
    return _too_early(plugins) or _wrong_inputs(plugins)


def _too_early(plugins: Sequence[tuple[str, type]]) -> str | None:
    for position, (name, cls) in enumerate(plugins):
        later = {other for other, _ in plugins[position:]}
        for needed in facts(PluginFacts, cls).requires:
            if needed in later:
                return f"plugin {name!r} needs {needed!r} before it"
    return None


def _wrong_inputs(plugins: Sequence[tuple[str, type]]) -> str | None:
    """Follow what the inputs are from transform to transform.

    Before the first transform that produces either, they are what the data set makes them: pixels
    if a later transform normalises them, else unknown.
    """
    stated = [(name, facts(PluginFacts, cls)) for name, cls in plugins]
    now, maker = None, ""
    for position, (name, fact) in enumerate(stated):
        wanted = fact.expects
        if wanted and now and wanted != now:
            return (
                f"plugin {name!r} transforms {INPUTS[wanted]}, but {maker!r} before it produces "
                f"{INPUTS[now]}; put {name!r} before {maker!r}"
            )
        later = next((n for n, other in stated[position + 1 :] if other.produces == wanted), None)
        if wanted == "normalised" and not now and later:
            return (
                f"plugin {name!r} transforms {INPUTS[wanted]}, but {later!r}, which produces "
                f"them, comes after it; put {later!r} before {name!r}"
            )
        if fact.produces:
            now, maker = fact.produces, name
    return None
