"""The fenced blocks of the documents, and how each of them is proved."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.docs.exceptions import LINES, UNPROVED

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("README.md")),
]
_FENCE = re.compile(r"(?P<indent> *)(?P<marks>`{3,})(?P<language>[\w-]*)(?: title=\"(?P<title>[^\"]+)\")?[^`]*")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        page: where it is, relative to the root.
        line: of its first fence.
        language: as it is written behind the fence; empty for what is to be typed in a shell.
        title: the name of the file that it is, if it is one.
        text: without the indentation of its fences.
    """

    page: str
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """Its lines but for empty ones."""
        return [line for line in self.text.splitlines() if line.strip()]


class Proof(Enum):
    """How a block is proved."""

    STEPS = "the untitled Python blocks of a page: one program, type-checked and run"
    PROGRAM = "a Python file, or a block that starts itself: type-checked, and run unless something else runs it"
    FUNCTIONS = "a module of authentication functions: type-checked, and served with"
    TESTS = "a Python file of tests: type-checked, and run by pytest"
    NODE = "a program for ChatKitty's JavaScript SDK: run in Node"
    PAGE = "a script for Kandy.js: checked by Node, and run in Chromium where the SDK is at hand"
    SCRIPT = "a JavaScript file: checked by Node; test_scripts.py runs it"
    HTML = "a page: its scripts are checked by Node; tests/kandy/test_tutorials.py opens it"
    OUTPUT = "what the page's Python steps print: compared"
    SHELL = "commands: run one after the other"
    SETTINGS = "offhook.toml: read by the settings"
    JSON = "read as JSON"
    NONE = "see exceptions.py"


@dataclass(frozen=True, slots=True)
class Unit:
    """What is proved as one: a block, or the blocks of a page that are one program.

    Attributes:
        proof: how.
        blocks: in the order of the page.
    """

    proof: Proof
    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        return f"{self.blocks[0].page}:{'+'.join(str(block.line) for block in self.blocks)}-{self.proof.name.lower()}"

    @property
    def page(self) -> str:
        """Where it is."""
        return self.blocks[0].page

    @property
    def text(self) -> str:
        """The blocks' text."""
        return "\n\n".join(block.text.rstrip("\n") for block in self.blocks) + "\n"

    @property
    def title(self) -> str | None:
        """The name of the file that it is, if it is one."""
        return self.blocks[0].title


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, those inside tabs and lists included.

    Raises:
        ValueError: a fence is never closed.
    """
    name = str(page.relative_to(ROOT))
    opened: tuple[int, re.Match[str]] | None = None
    gathered: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(keepends=True), 1):
        if opened is None:
            if match := _FENCE.fullmatch(line.rstrip("\n")):
                opened, gathered = (number, match), []
        elif line.strip() == opened[1]["marks"]:
            begun, match = opened
            yield Block(name, begun, match["language"], match["title"], textwrap.dedent("".join(gathered)))
            opened = None
        else:
            gathered.append(line)
    if opened is not None:
        raise ValueError(f"{name}:{opened[0]}: the fence is never closed")


def proof(block: Block) -> Proof | None:
    """How a block is to be proved, or None if nothing here can and no exception names it."""
    if any(exception.fits(block.page, block.text) for exception in UNPROVED):
        return Proof.NONE
    match block.language:
        case "python" if "@on.user_attempted_start_session" in block.text:
            return Proof.FUNCTIONS
        case "python" if block.title is None and "asyncio.run(" not in block.text:
            return Proof.STEPS
        case "python":
            return Proof.TESTS if block.title and block.title.startswith("test_") else Proof.PROGRAM
        case "js" if block.title is not None:
            return Proof.SCRIPT
        case "js":
            return Proof.PAGE if "andy" in block.text or "kandy" in block.page else Proof.NODE
        case "html":
            return Proof.HTML
        case "text":
            return Proof.OUTPUT
        case "" | "sh":
            return Proof.SHELL
        case "toml":
            return Proof.SETTINGS
        case "json":
            return Proof.JSON
    return None


def units(page: Path) -> list[Unit]:
    """What is to be proved on a page, in its order; a program of several blocks where its first one is."""
    found: list[Unit] = []
    for block in blocks(page):
        how = proof(block)
        if how is None:
            continue
        position = next((at for at, unit in enumerate(found) if _continues(unit, how, block)), None)
        if position is None:
            found.append(Unit(how, (block,)))
        else:
            found[position] = Unit(how, (*found[position].blocks, block))
    return found


def _continues(unit: Unit, how: Proof, block: Block) -> bool:
    """Whether a block goes on with a program that was begun further up."""
    if unit.proof is not how:
        return False
    if how in (Proof.STEPS, Proof.OUTPUT):
        return True
    begins = re.search(r"^(import|const kandy =)", block.text, re.MULTILINE)
    return how in (Proof.NODE, Proof.PAGE) and "quickstarts/" in block.page and begins is None


def commands(block: Block) -> list[str]:
    """The lines of a shell block that are run: all but those that are known for something that a test cannot do."""
    return [line for line in block.lines if not any(exception.fits(block.page, line) for exception in LINES)]


ALL = [unit for page in PAGES for unit in units(page)]
"""Everything that is to be proved."""


def of(*proofs: Proof) -> list[Unit]:
    """What is to be proved in one of these ways."""
    return [unit for unit in ALL if unit.proof in proofs]
