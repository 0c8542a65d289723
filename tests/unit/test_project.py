"""What must be true of the project as a whole: size of modules, documentation, where its parts come from."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

from docs.generate import pages
from typer.testing import CliRunner

from offhook import __version__
from offhook.cli.main import app
from offhook.settings import Settings

ROOT = Path(__file__).parents[2]
CODE = [
    path
    for folder in ("src", "tests", "docs", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "node_modules" not in path.parts
]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")]
TEXTS += sorted((ROOT / "docs").rglob("*.md"))
HARD_CAP = 600


def test_modules_are_small() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in CODE}
    assert len(sizes) > 50
    assert {name: size for name, size in sizes.items() if size > HARD_CAP} == {}


def test_modules_say_what_they_are_for() -> None:
    source = [path for path in CODE if path.is_relative_to(ROOT / "src")]
    silent = [path for path in source if not path.read_text().startswith(('"""', 'r"""'))]
    assert silent == []


def test_nothing_is_left_to_do_later() -> None:
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
    assert [path for path in (*CODE, *TEXTS) if marks.search(path.read_text())] == []


def test_generated_documentation_is_what_the_code_says() -> None:
    stale = [str(path.relative_to(ROOT)) for path, content in pages().items() if path.read_text() != content]
    assert stale == [], "run make docs"


def test_links_between_documents_lead_somewhere() -> None:
    links = [(path, target) for path in TEXTS for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", path.read_text())]
    assert len(links) > 5
    assert [(path.name, target) for path, target in links if not (path.parent / target).exists()] == []


def shown_commands() -> list[str]:
    """Every ``offhook …`` command line in the documents, without what comes before and after it in the shell."""
    command = re.compile(r"(?:^|\| |/)offhook ((?:(?! {2,}|[|<>]).)+)")
    found = []
    for path in TEXTS:
        fence: str | None = None
        for line in path.read_text().splitlines():
            if line.startswith("```"):
                fence = line[3:] if fence is None else None
            elif fence == "" and (match := command.search(line)):
                found.append(match[1].strip())
    return found


def test_commands_in_documents_are_understood() -> None:
    commands = sorted(set(shown_commands()))
    assert len(commands) > 20
    runner = CliRunner()
    for line in commands:
        # The options before --help must all be known for it to be shown.
        result = runner.invoke(app, [*shlex.split(line), "--help"])
        assert result.exit_code == 0 and "Usage:" in result.stdout, f"offhook {line}: {result.stderr}"


def test_settings_say_what_they_are() -> None:
    schema = Settings.model_json_schema()["properties"]
    assert [name for name, field in schema.items() if "description" not in field and "enum" not in field] == []


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
