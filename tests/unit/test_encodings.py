"""Text files are read and written as UTF-8, whatever the locale: every call of the trainer says so."""

from __future__ import annotations

import ast

from support import ROOT

TEXT_CALLS = {"open", "read_text", "write_text"}


def find_calls_without_encoding(source: str, name: str) -> list[str]:
    """The calls that open a text file in the encoding of the locale, as NAME:LINE."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = getattr(function.value, "id", "") if isinstance(function, ast.Attribute) else ""
        if called not in TEXT_CALLS or owner in ("Image", "os"):
            continue
        if isinstance(function, ast.Name) and called != "open":  # `write_text` of `drpo.training.files`
            continue
        if called == "read_text" and node.args:  # its first argument is the encoding
            continue
        modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        binary = any(isinstance(mode, str) and "b" in mode and len(mode) <= 3 for mode in modes)
        if not binary and not any(keyword.arg == "encoding" for keyword in node.keywords):
            found.append(f"{name}:{node.lineno}")
    return found


def test_every_text_file_is_utf_8() -> None:
    found: list[str] = []
    for file in sorted((ROOT / "trainer").rglob("*.py")):
        found += find_calls_without_encoding(file.read_text("utf-8"), str(file.relative_to(ROOT)))
    assert not found, "add encoding='utf-8': " + ", ".join(found)


def test_a_call_without_encoding_is_found() -> None:
    source = "path.read_text()\nopen(name)\npath.write_text(text)\npath.open('rb')\npath.read_text('utf-8')\n"
    assert find_calls_without_encoding(source + "open(name, encoding='utf-8')\nImage.open(file)", "x.py") == [
        "x.py:1",
        "x.py:2",
        "x.py:3",
    ]
