"""The examples of services/README.md, so that tests run what people copy."""

from __future__ import annotations

import re

from support import ROOT

README = ROOT / "services" / "README.md"


def example(containing: str) -> str:
    """The one code block of the guide that has this text in it."""
    found = [
        block for block in re.findall(r"^```\w+\n(.*?)^```$", README.read_text(), re.M | re.S) if containing in block
    ]
    assert len(found) == 1, f"{len(found)} examples of {README} contain {containing!r}"
    return found[0]
