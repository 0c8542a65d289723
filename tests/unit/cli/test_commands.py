"""``offhook app``, ``user`` and ``session`` without a server: on services opened in the command itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.support import Cli


@pytest.fixture
def shop(offhook: Cli) -> dict[str, object]:
    return offhook.done("app", "create", "shop")


def listed(answer: dict[str, object], what: str) -> list[object]:
    items = answer[what]
    assert isinstance(items, list)
    return [item["name"] for item in items]


def test_an_applications_life(offhook: Cli) -> None:
    made = offhook.done(
        "app", "create", "shop", "--domain", "shop.example", "--api-key", "my-own-key", "--no-guests",
        "--max-sessions", "1", "--duplicates", "reject-new", "--leave-grace", "2.5", "--resume-window", "60",
        "--socket-wait", "30", "--socket-grace", "45",
    )  # fmt: skip
    assert (made["name"], made["domain"], made["api_key"], made["guests"]) == (
        "shop", "shop.example", "my-own-key", False,
    )  # fmt: skip
    assert made["sessions"] == {
        "max_sessions": 1, "duplicates": "reject-new", "leave_grace": 2.5, "resume_window": 60.0,
        "socket_wait": 30.0, "socket_grace": 45.0,
    }  # fmt: skip
    changed = offhook.done("app", "update", "shop", "--socket-grace", "5")["sessions"]
    assert isinstance(changed, dict) and (changed["socket_grace"], changed["socket_wait"]) == (5.0, 30.0)
    assert made["client_secret"] and made["webhook_secret"] and made["hmac_key"]
    assert listed(offhook.done("app", "list"), "applications") == ["shop"]
    shown = offhook.done("app", "show", "shop")
    assert "webhook_secret" not in shown and "hmac_key" not in shown
    shown = offhook.done("app", "show", "shop", "--secrets")
    assert (shown["webhook_secret"], shown["hmac_key"]) == (made["webhook_secret"], made["hmac_key"])
    assert offhook.done("app", "update", "shop", "--guests", "--disable")["enabled"] is False
    assert offhook.done("app", "rotate-key", "shop")["api_key"] != "my-own-key"
    assert offhook.done("app", "delete", "shop") == {"deleted": "shop"}
    assert offhook.done("app", "list") == {"applications": []}


def test_tokens_and_webhook_of_an_application(offhook: Cli, shop: dict[str, object], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 40 + "\n")
    tokens = offhook.done(
        "app", "update", "shop", "--token-algorithm", "HS256", "--token-secret-file", str(secret),
        "--token-issuer", "me", "--token-audience", "you", "--token-claim", "name",
    )["tokens"]  # fmt: skip
    assert tokens == {
        "algorithms": ["HS256"], "has_secret": True, "public_key": None, "jwks": None,
        "issuer": "me", "audience": "you", "username_claim": "name",
    }  # fmt: skip
    tokens = offhook.done("app", "update", "shop", "--token-issuer", "")["tokens"]
    assert isinstance(tokens, dict) and (tokens["issuer"], tokens["audience"]) == (None, "you")
    by_stdin = offhook("app", "update", "shop", "--token-secret-file", "-", stdin="t" * 40)
    assert by_stdin.code == 0 and "t" * 40 not in by_stdin.out
    changed = offhook.done("app", "update", "shop", "--webhook", "https://shop.example/hook", "--webhook-timeout", "2")
    assert changed["webhook"] == {"url": "https://shop.example/hook", "timeout": 2.0}
    cleared = offhook.done("app", "update", "shop", "--no-tokens", "--no-webhook")
    assert (cleared["tokens"], cleared["webhook"]) == (None, None)


REFUSED: list[tuple[list[str], int]] = [
    (["app", "update", "shop"], 2),
    (["app", "update", "shop", "--no-webhook", "--webhook", "http://x/"], 2),
    (["app", "update", "shop", "--token-secret-file", "missing"], 2),
    (["app", "update", "shop", "--webhook", "nonsense"], 1),
    (["app", "update", "shop", "--duplicates", "explode"], 1),
    (["app", "create", "shop"], 1),
    (["app", "show", "none"], 3),
    (["app", "frobnicate"], 2),
    (["user", "create", "x", "--app", "none"], 3),
    (["user", "create", "x", "--app", "shop", "--properties", "[]"], 2),
    (["user", "create", "x", "--app", "shop", "--password", "on-argv"], 2),
    (["user", "set-password", "x", "--app", "shop", "--remove", "--password-stdin"], 2),
    (["user", "show", "none", "--app", "shop"], 3),
    (["user", "list", "--size", "0"], 2),
    (["session", "show", "1"], 3),
    (["session", "show", "x"], 2),
    (["session", "end"], 2),
    (["session", "end", "1", "--user", "x"], 2),
    (["session", "end", "--user", "none", "--app", "shop"], 3),
    (["session", "list", "--state", "asleep"], 1),
]


def test_what_is_refused(offhook: Cli, shop: dict[str, object]) -> None:
    for arguments, code in REFUSED:
        outcome = offhook(*arguments)
        assert (outcome.code, outcome.out) == (code, ""), arguments
        assert outcome.err and "Traceback" not in outcome.err


def test_failures_as_json(offhook: Cli, shop: dict[str, object]) -> None:
    missing = offhook("app", "show", "none", "--json")
    assert missing.code == 3
    assert json.loads(missing.err)["error"] == "not_found"
    wrong = offhook("app", "update", "shop", "--webhook", "nonsense", "--json")
    assert json.loads(wrong.err)["field"] == "webhook.url"


def test_a_users_life(offhook: Cli, shop: dict[str, object]) -> None:
    made = offhook.done(
        "user", "create", "jane@example.com", "--app", "shop", "--display-name", "Jane",
        "--properties", '{"plan": "pro"}', "--password-stdin", stdin="p\u00e4ss word\r\nnot this\n",
    )  # fmt: skip
    assert (made["name"], made["display_name"], made["properties"], made["has_password"]) == (
        "jane@example.com", "Jane", {"plan": "pro"}, True,
    )  # fmt: skip
    of_shop = ("--app", "shop")
    assert listed(offhook.done("user", "list", *of_shop, "--offline"), "users") == ["jane@example.com"]
    assert listed(offhook.done("user", "list", *of_shop, "--online"), "users") == []
    assert listed(offhook.done("user", "list", *of_shop, "--display-name", "jan"), "users") == ["jane@example.com"]
    assert listed(offhook.done("user", "list", *of_shop, "--name", "jan"), "users") == []
    assert offhook.done("user", "disable", "jane@example.com", *of_shop)["enabled"] is False
    assert offhook.done("user", "enable", "jane@example.com", *of_shop)["enabled"] is True
    assert offhook.done("user", "set-password", "jane@example.com", *of_shop, "--remove")["has_password"] is False
    typed = offhook("user", "set-password", "jane@example.com", *of_shop, stdin="new\nnew\n")
    assert typed.code == 0 and "new" not in typed.out.replace("New", "")
    assert offhook.done("user", "show", "jane@example.com", *of_shop)["has_password"] is True
    assert offhook.done("user", "delete", "jane@example.com", *of_shop) == {"deleted": "jane@example.com"}
    assert offhook("user", "show", "jane@example.com", *of_shop).code == 3


@pytest.mark.parametrize("stdin", [b"", b"\n", b"\xff\n"])
def test_a_password_that_is_none(offhook: Cli, shop: dict[str, object], stdin: bytes) -> None:
    outcome = offhook("user", "create", "jane", "--app", "shop", "--password-stdin", stdin=stdin)
    assert outcome.code == 2
    assert "standard input" in outcome.err
    assert offhook("user", "show", "jane", "--app", "shop").code == 3


def test_text_for_people(offhook: Cli, shop: dict[str, object]) -> None:
    created = offhook("user", "create", "[bold]jane[/bold]", "--app", "shop")
    assert "has password  no" in created.out
    table = offhook("user", "list", "--app", "shop", "--size", "1").out
    assert "[bold]jane[/bold]" in table and "NAME" in table
    assert "Keep the client secret" in offhook("app", "rotate-key", "shop").out
    assert "shop.local" in offhook("app", "list").out
    assert offhook("session", "list").out == "No sessions.\n"
    offhook("user", "create", "joe", "--app", "shop")
    assert "Page 0 of 0-1; 2 users in all." in offhook("user", "list", "--app", "shop", "--size", "1").out
    assert offhook("user", "delete", "joe", "--app", "shop").out == "The user joe is deleted.\n"
    assert offhook("session", "end", "--app", "shop").out == "0 sessions ended.\n"


def test_names_that_look_like_paths(offhook: Cli) -> None:
    for name in ("a/b", "..", "100%"):
        offhook.done("app", "create", name)
        offhook.done("user", "create", name, "--app", name)
        assert offhook.done("user", "show", name, "--app", name)["name"] == name


def test_the_secret_of_the_turn_server(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = offhook.done("turn-secret")
    assert (answer["derived"], answer["lifetime"]) == (True, 86400.0)
    assert len(str(answer["secret"])) >= 32
    assert offhook("turn-secret").out == f"{answer['secret']}\n"
    monkeypatch.setenv("OFFHOOK_TURN_SECRET", "a secret of its own")
    monkeypatch.setenv("OFFHOOK_TURN_LIFETIME", "600")
    assert offhook.done("turn-secret") == {"secret": "a secret of its own", "derived": False, "lifetime": 600.0}


def test_the_files_are_the_owners_alone(offhook: Cli, shop: dict[str, object]) -> None:
    assert offhook.data_dir.stat().st_mode & 0o077 == 0
    for name in ("admin.token", "secret.key"):
        assert (offhook.data_dir / name).stat().st_mode & 0o077 == 0
