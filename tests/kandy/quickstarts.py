"""The vendor's quickstart pages as they are, but for hosts, ports, user name and password."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

_DATA = re.compile(r"""name="data" value='(?P<data>.*?)'>""", re.DOTALL)


class _Pen(msgspec.Struct, frozen=True):
    """What the page's form hands to CodePen."""

    js: str
    html: str
    title: str
    js_external: str


@dataclass(frozen=True, slots=True)
class Quickstart:
    """A page, ready to run.

    Attributes:
        source: the script as the vendor wrote it.
        body: the page's body, script included.
    """

    source: str
    body: str


def quickstart(folder: Path, product: str, address: str, user: str, password: str) -> Quickstart:
    """Reads the quickstart about connecting and fills in where and who.

    Args:
        folder: has the pages.
        product: ``link`` or ``uc``, as it stands in the page's permalink.
        address: ``host:port`` of the server.
        user: full user name.
        password: the user's password.

    Raises:
        LookupError: no page of the folder has such a permalink and a form for CodePen.
    """
    permalink = f"permalink: /quickstarts/javascript/{product}/User%20Connect"
    for page in sorted(folder.iterdir()):
        text = page.read_text(errors="replace")
        if permalink in text and (found := _DATA.search(text)):
            pen = msgspec.json.decode(html.unescape(found["data"]), type=_Pen)
            script = _filled(pen.js, address, user, password)
            return Quickstart(pen.js, f"{pen.html}\n<script>{script}</script>")
    raise LookupError(f"{folder} has no quickstart about connecting with {product}")


def _filled(script: str, address: str, user: str, password: str) -> str:
    host, _, port = address.rpartition(":")
    where = f"'{host}', port: {port}"
    # UC's page leaves the server and what goes with it open, Link's has names to be replaced.
    script = re.sub(r"server: \.\.\.,\s*\.\.\.", f"server: {where}", script)
    for name in ("$SUBSCRIPTIONFQDN$", "$WEBSOCKETFQDN$"):
        script = script.replace(f"'{name}'", where)
    script = re.sub(r"\$KANDY(TURN|STUN)\d\$", lambda match: f"{match[1].lower()}:{host}:3478", script)
    for placeholder, value in (("UsernameHere", user), ("PasswordHere", password)):
        literal = msgspec.json.encode(value).decode()
        for quote in "'\"":
            script = script.replace(f"{quote}{placeholder}{quote}", literal)
    return script
