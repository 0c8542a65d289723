"""Writes the parts of the documentation that are made from the code: settings, codes, metrics, the errors
of the SDK.

``make docs`` runs it; a test checks that what is written is what the code says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic_core import PydanticUndefined

from offhook.client.kandy.errors import CODES
from offhook.codes import CLOSINGS, ENDINGS, Ending
from offhook.server.metrics import Metrics
from offhook.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


def settings_table() -> str:
    """Every setting with its default and meaning, as a Markdown table."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        if default is PydanticUndefined:
            raise ValueError(f"the setting {name} has no default")
        rows.append((f"`{name}`", _default(default), field.description or _choices(name)))
    return _table(("setting", "default", "meaning"), rows)


def _choices(name: str) -> str:
    schema = Settings.model_json_schema()["properties"][name]
    return f"One of {', '.join(f'`{choice}`' for choice in schema['enum'])}."


def _default(value: object) -> str:
    match value:
        case None | "" | ():
            return "–"
        case tuple():
            return ", ".join(f"`{item}`" for item in value)
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`" if value < 1e5 else f"`{value:.0f}`"
        case _:
            return f"`{value}`"


def codes_page() -> str:
    """``docs/codes.md``: every reason for which a session or a connection ends."""
    return "\n".join(
        [
            "# Why sessions and connections end",
            "",
            "Made from `src/offhook/codes.py` by `make docs`; do not edit.",
            "",
            "A *session* is one client's stay; it survives the loss of its *connection* (one socket) for a while.",
            "`offhook session show ID` names these reasons, and so do the metrics `offhook_session_ends_total` and",
            "`offhook_connection_closes_total`. The number is the WebSocket close code: 1000 to 1015 are those of RFC",
            "6455, 4000 to 4499 mean that the client should come back, 4500 to 4999 that it should not.",
            "",
            "## Sessions",
            "",
            _endings((reason.value, ending) for reason, ending in ENDINGS.items()),
            "",
            "## Connections",
            "",
            _endings((reason.value, ending) for reason, ending in CLOSINGS.items()),
            "",
        ]
    )


def _endings(endings: Iterable[tuple[str, Ending]]) -> str:
    rows = [(f"`{name}`", str(e.websocket), "yes" if e.retry else "no", e.text) for name, e in endings]
    return _table(("reason", "code", "come back", "meaning"), rows)


def metrics_table() -> str:
    """Every metric with its labels, as a Markdown table."""
    rows = []
    for family in Metrics().collect():
        suffix = "_total" if family.type == "counter" else ""
        rows.append((f"`{family.name}{suffix}`", family.type, family.documentation))
    return _table(("metric", "kind", "meaning"), rows)


def kandy_codes_table() -> str:
    """Every code of the Kandy client's errors, as a Markdown table."""
    return _table(("code", "meaning"), [(f"`{code}`", text) for code, text in CODES.items()])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def with_part(text: str, name: str, part: str) -> str:
    """A page with its generated part replaced: what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    replaced, count = pattern.subn(lambda match: f"{match[1]}{part}\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"the page needs one part named {name}")
    return replaced


def pages() -> dict[Path, str]:
    """Path → content of every page with generated parts, as it should be."""
    readme, operations = ROOT / "README.md", ROOT / "docs" / "operations.md"
    kandy = ROOT / "docs" / "reference" / "kandy.md"
    return {
        readme: with_part(readme.read_text(), "settings", settings_table()),
        operations: with_part(operations.read_text(), "metrics", metrics_table()),
        kandy: with_part(kandy.read_text(), "kandy-codes", kandy_codes_table()),
        ROOT / "docs" / "codes.md": codes_page(),
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content)
