"""The blocks and lines of the documents that are not proved, and why. There is no other way for one to go unproved."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exemption:
    """What is not proved.

    Attributes:
        page: where it is; an empty one is every page.
        pattern: regular expression that the block or line begins with.
        reason: why.
    """

    page: str
    pattern: str
    reason: str

    def fits(self, page: str, text: str) -> bool:
        """Whether this is it."""
        return self.page in ("", page) and re.match(self.pattern, text) is not None


UNPROVED = (
    Exemption("README.md", r"offhook serve {2,}", "an overview; test_project.py tries each of its commands"),
    Exemption("examples/README.md", r"", "tests/e2e/test_examples.py runs every example as it says"),
    Exemption("docs/operations.md", r"location /", "nginx's configuration; nginx is not installed for the tests"),
    Exemption("docs/guides/production.md", r"\[Service\]", "systemd's configuration; there is no systemd in tests"),
    Exemption("docs/tutorials/kandy-link.md", r"listening-port", "coturn's; tests/e2e/test_turn.py runs it"),
    Exemption("docs/tutorials/kandy-link.md", r"subscribed to|bob@", "the page's log; tests/kandy/test_tutorials.py"),
)
"""Whole blocks."""

LINES = (
    Exemption("", r"make run$", "downloads; what it starts is started by reader.py"),
    Exemption("", r"python3 -m http\.server", "goes on until it is stopped"),
    Exemption("", r"(\.venv/bin/)?offhook serve", "goes on until it is stopped; test_functions.py serves"),
    Exemption(
        "docs/cluster.md", r"deploy/secrets\.sh|docker compose", "there is no Docker in tests; see test_deploy.py"
    ),
    Exemption(
        "docs/cluster.md", r"offhook db (copy|upgrade)|pg_|psql", "need a stopped server; test_cluster.py runs them"
    ),
    Exemption("docs/index.md", r"\.venv/bin/offhook quickstart$", "tests/e2e/test_quickstart.py plays them"),
    Exemption("", r"python3 -m venv|\.venv/bin/pip install|pip install", "downloads"),
    Exemption("", r"offhook user create \S+ --ask-password$", "asks at a terminal"),
    Exemption("", r"certutil ", "changes the browser of whoever runs the tests"),
)
"""Single lines of shell blocks."""

LOOSELY_TYPED = ("README.md",)
"""Pages whose functions have no types, so that who comes first reads less; the rest is checked as strictly as all."""

ELSEWHERE = {
    "hmac_token.py": "test_scripts.py",
    "jwt_token.py": "test_scripts.py",
    "receiver.py": "test_functions.py",
}
"""Python files that need more than to be started, and the test that runs them."""
