"""The fenced blocks of the guides: read them, and make them ready to run.

A block that no test can run has a comment in the line above it, which readers do not see: <!-- no-run: why -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUIDES = (
    "README.md",
    "docs/offline.md",
    "CONTRIBUTING.md",
    "services/README.md",
    "services/drpo_rewards/rewards/README.md",
    "deploy/README.md",
    "trainer/drpo/shapes/README.md",
    "docs/methods.md",
    "docs/speed.md",
    "docs/clients.md",
    "docs/trainers/trl.md",
    "docs/trainers/flow_grpo.md",
    "docs/trainers/verl.md",
    "docs/trainers/unirl.md",
)

_BLOCK = re.compile(r"(?:^<!-- no-run: (?P<why>[^\n]+) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        name: the guide's path and the number of the block's first line, for example README.md:17.
        language: the word behind the fence, such as "bash"; "" for drawings.
        text: the lines between the fences.
        no_run: why no test runs it; None if one does.
    """

    name: str
    language: str
    text: str
    no_run: str | None

    def __str__(self) -> str:
        return self.name

    @property
    def file_name(self) -> str | None:
        """The name in a first line like `# my.yaml`, for blocks that are the content of a file."""
        match = re.match(r"# ([\w.]+\.\w+)\n", self.text)
        return match[1] if match else None


def read_blocks(language: str | None = None) -> list[Block]:
    """The blocks of all guides in order, or those of one language."""
    blocks = []
    for guide in GUIDES:
        text = (ROOT / guide).read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            blocks.append(Block(f"{guide}:{line}", match["language"], match["text"], match["why"]))
    return [block for block in blocks if language in (None, block.language)]


def split_commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command in a block of shell, without comments and variables in front.

    A command substitution becomes the word VALUE, and a here-document nothing.
    """
    text = re.sub(r"<<(\w+)\n.*?^\1$", "", text.replace("\\\n", " "), flags=re.M | re.S)
    text = re.sub(r"(^|\s)#\s.*$", "", re.sub(r"\$\([^)]*\)", "VALUE", text), flags=re.M)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if not set(word) <= set("|&;\n"):
            words.append(word)
            continue
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words:
            yield words
        words = []
