"""Makes Markdown of the docstrings' few other marks, for the API reference: roles and literal blocks."""

from __future__ import annotations

import re

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)(?:([\w.]+))`")
_LITERAL = re.compile(r"^( *)(.*?) ?::$\n(?:[ \t]*\n)*((?:(?:\1    .*)?\n)*(?:\1    .*(?:\n|\Z)))", re.MULTILINE)


class Docstrings(griffe.Extension):
    """What mkdocstrings runs every docstring through."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Called for every module, class, function and attribute once it is read."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring with links for roles and fences around literal blocks.

    Args:
        text: without its common indentation.
    """
    return _ROLE.sub(_link, _LITERAL.sub(_fence, text + "\n"))


def _link(role: re.Match[str]) -> str:
    path = role[2]
    shown = path.rpartition(".")[2] if role[1] else path
    return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'


def _fence(block: re.Match[str]) -> str:
    indent, words, code = block[1], block[2], block[3].rstrip("\n")
    before = f"{indent}{words}:\n\n" if words else ""
    dedented = "\n".join(line[4:] for line in code.split("\n"))
    return f"{before}{indent}```python\n{dedented}\n{indent}```\n"
