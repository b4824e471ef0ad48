"""What pages call in Python, `fedbench.run(...)`, has arguments that the functions take."""

from __future__ import annotations

import ast
import inspect

import fedbench


def calls(text: str) -> list[ast.Call]:
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [
        call
        for call in found
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "fedbench"
    ]


def test_calls_of_fedbench_fit_its_functions(page, site):
    text = page.read_text(encoding="utf-8")
    blocks = [block.text for block in site.blocks(text) if block.language == "python"]
    found = [call for block in blocks if "fedbench." in block for call in calls(block)]
    assert found or page.name != "python.md"
    for call in found:
        function = getattr(fedbench, call.func.attr)
        named = {str(keyword.arg): None for keyword in call.keywords}
        inspect.signature(function).bind(*call.args, **named)
