"""The documents' scripts for Kandy.js, in Chromium with the vendor's builds where they are at hand."""

from __future__ import annotations

import re
from functools import partial

import msgspec
import pytest
from tests.docs.blocks import Proof, Unit, of
from tests.kandy.conftest import driver, kandy_server, server, stage
from tests.kandy.products import SDKS_VARIABLE, Product, products
from tests.kandy.stage import PASSWORD, KandyStage

__all__ = ["driver", "kandy_server", "server", "stage"]

BUILDS = products()
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(not BUILDS, reason=f"Kandy.js is proprietary: name a folder with its builds in {SDKS_VARIABLE}"),
]
PLAYS: dict[str, list[tuple[str, str]]] = {
    "docs/quickstarts/kandy-uc.md": [
        ("login", "Connected: true"),
        ("logout", "Connected: false"),
        ("mistake", r"Connect error: .+ \(authentication:9\)"),
    ],
    "docs/quickstarts/kandy-link.md": [
        ("login", "Credentials set"),
        ("subscribe", "Subscribed: call, Presence, IM"),
        ("work", r"bob@example\.com is closed"),
        ("unsubscribe", "Subscribed: nothing"),
        ("mistake", r"Subscribe error: .+ \(authentication:4\)"),
    ],
}
"""Page → what is called, and what is logged then, in this order."""
SCRIPTS = [unit for unit in of(Proof.PAGE) if "Kandy.create" in unit.text]
assert set(PLAYS) < {unit.page for unit in SCRIPTS}


def build_for(unit: Unit) -> Product | None:
    """The newest build of the family that the script is for."""
    link = "setCredentials" in unit.text
    return next((build for build in BUILDS if (build.plugin if link else not build.link)), None)


@pytest.mark.parametrize("unit", SCRIPTS, ids=str)
async def test_the_script_works(stage: KandyStage, unit: Unit) -> None:
    build = build_for(unit)
    assert build is not None, f"{SDKS_VARIABLE} names no build for {unit}"
    alice = await stage.user("alice")
    text = unit.text.replace("alice@example.com", alice).replace("8687", stage.server.tls_host.rpartition(":")[2])
    text = text.replace("'THE PASSWORD'", msgspec.json.encode(PASSWORD).decode())
    watch = "const lines = []; console.log = (line) => { lines.push(line) }"
    tab = await stage.tab(f"<script>{watch}</script>\n<script>{text}</script>", [build.script])

    async def logged() -> list[str]:
        return msgspec.convert(await tab.evaluate("() => lines.map(String)"), list[str])

    for function, expected in PLAYS.get(unit.page, []):
        heard = partial(_heard, re.compile(expected), len(await logged()))
        await tab.evaluate(f"() => {{ {function}() }}")
        await tab.eventually(logged, heard, f"{expected} in the log")
    if unit.page not in PLAYS:

        async def states() -> list[str]:
            return [session.state for session in await stage.sessions(alice)]

        await tab.eventually(states, lambda found: found == ["active"], "a session of hers")
    assert tab.complaints() == []


def _heard(expected: re.Pattern[str], since: int, lines: list[str]) -> bool:
    return any(expected.fullmatch(line) for line in lines[since:])
