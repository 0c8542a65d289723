"""``offhook quickstart``: its player, how it finds a server, and how it fails. What it plays is in tests/e2e."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import free_port
from tests.unit.cli.support import Cli

from offhook.cli.failures import Failure
from offhook.cli.quickstart.place import API_KEY, Person, Place, checked_ca, checked_url, known, read_people, why_silent
from offhook.cli.quickstart.player import Line, Player, Tally, Wrong, expect
from offhook.cli.quickstart.report import Report, plain
from offhook.client.errors import ConnectionLost
from offhook.testing import BlockingTestServer, TestServer


def player(lines: list[Line], limit: float = 5.0) -> Player:
    return Player("some", lines.append, time.monotonic(), limit)


async def test_steps_are_told_in_order_with_what_happens_in_them() -> None:
    lines: list[Line] = []
    playing = player(lines)

    async def steps() -> None:
        async with playing.step("first"):
            playing.event("auth:change", "connected", {"connected": True})
        playing.skip("second", "not here")
        async with playing.step("third"):
            playing.value("getConnection", "{}")

    tally = await playing.play(steps())
    told = [(line.kind, line.name) for line in lines]
    assert told == [
        ("step", "first"),
        ("event", "auth:change"),
        ("passed", "first"),
        ("skipped", "second"),
        ("step", "third"),
        ("value", "getConnection"),
        ("passed", "third"),
    ]
    assert (tally.passed, tally.failed, tally.skipped, tally.events) == (2, {}, 1, 1)
    assert [line.offset for line in lines] == sorted(line.offset for line in lines)
    assert lines[1].json()["data"] == {"connected": True}


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (Wrong("it should be 1 and is 2"), "it should be 1 and is 2"),
        (ConnectionLost(1011), "The connection was closed with code 1011 (connection_lost)"),
    ],
)
async def test_a_failed_step_ends_its_quickstart(error: Exception, why: str) -> None:
    lines: list[Line] = []
    playing = player(lines)
    cleaned = False

    async def steps() -> None:
        nonlocal cleaned
        try:
            async with playing.step("fails"):
                raise error
            raise AssertionError("the next step was played")
        finally:
            cleaned = True

    tally = await playing.play(steps())
    assert tally.failed == {"fails": why}
    assert cleaned
    assert [line.kind for line in lines] == ["step", "failed"]


async def test_a_step_cannot_hang() -> None:
    lines: list[Line] = []
    playing = player(lines, limit=0.05)

    async def steps() -> None:
        async with playing.step("hangs"):
            await playing.until(lambda: False)

    async with asyncio.timeout(5):
        tally = await playing.play(steps())
    assert tally.failed == {"hangs": "It did not happen within 0.05 s"}


async def test_waiting_looks_again_after_each_event() -> None:
    playing = player([])
    seen: list[int] = []
    waiting = asyncio.create_task(playing.until(lambda: len(seen) == 2))
    for number in range(2):
        await asyncio.sleep(0)
        assert not waiting.done()
        seen.append(number)
        playing.event("some", "event")
    async with asyncio.timeout(5):
        await waiting


async def test_who_does_not_read_ends_it_at_a_step_and_not_at_an_event() -> None:
    def write(line: Line) -> None:
        if line.kind != "step":
            raise BrokenPipeError

    playing = Player("some", write, time.monotonic())
    seen: list[str] = []

    async def steps() -> None:
        async with playing.step("first"):
            playing.event("auth:change", "told by the SDK")
            seen.append("went on")

    with pytest.raises(BrokenPipeError):
        await playing.play(steps())
    assert seen == ["went on"]


async def test_a_defect_is_not_taken_for_a_failed_step() -> None:
    playing = player([])

    async def steps() -> None:
        async with playing.step("has a defect"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await playing.play(steps())


def test_what_is_expected_is_said() -> None:
    expect("the answer", 42, 42)
    with pytest.raises(Wrong, match="the answer should be 42 and is '42'"):
        expect("the answer", 42, "42")


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(as_json=True)
    report.place(Place("http://127.0.0.1:1", own=True))
    report.quickstart("chatkitty", "not shown")
    report.line(Line(0.5, "chatkitty", "event", "some", "text\nwith lines", {"a": 1}))
    report.summary([Tally("chatkitty", passed=1, failed={"a step": "why"})])
    server, line, summary = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    assert server == {"kind": "server", "url": "http://127.0.0.1:1", "own": True}
    assert line["text"] == "text\nwith lines" and line["data"] == {"a": 1} and line["offset"] == 0.5
    assert summary["passed"] is False
    assert summary["quickstarts"][0]["failed"] == {"a step": "why"}


def test_text_does_not_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Report(as_json=False).line(Line(0.0, "chatkitty", "event", "some", "a\x1b[2Jb\nc"))
    assert capsys.readouterr().out.endswith("some: a�[2Jb�c\n")
    assert plain("Zoë 🙂") == "Zoë 🙂"


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8686", "ftp://host", "http://", "http://host:99999", "http://host:0", "http://a@b", "http://a?b"],
)
def test_no_url_of_a_server(url: str) -> None:
    with pytest.raises(Failure) as failed:
        checked_url(url)
    assert failed.value.exit_code == 2


def test_urls_become_configurations() -> None:
    place = Place(checked_url("https://example.com:8687/base/"))
    assert (place.url, place.host, place.secure) == ("https://example.com:8687/base", "example.com:8687/base", True)
    socket = {"protocol": "wss", "server": "example.com", "port": 8687}
    assert place.kandy("link") == {
        "authentication": {"server": {"protocol": "https", "port": 8687, "base": "example.com"}},
        "subscription": {"websocket": socket},
    }
    assert place.kandy("uc")["authentication"] == {
        "subscription": {"protocol": "https", "port": 8687, "server": "example.com"},
        "websocket": socket,
    }
    plain_socket = {"protocol": "ws", "server": "127.0.0.1", "port": 80}
    assert Place("http://127.0.0.1").kandy("link")["subscription"] == {"websocket": plain_socket}


def test_passwords_stand_in_lines(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("one\r\ntwo words\n")
    people = read_people(["a", "b"], file, False)
    assert people == (Person("a", "one"), Person("b", "two words"))
    assert "two words" not in repr(people)
    with pytest.raises(Failure, match="2 passwords for 3 users"):
        read_people(["a", "b", "c"], file, False)
    with pytest.raises(Failure, match="exclude each other"):
        read_people(["a"], file, True)
    with pytest.raises(Failure, match="Name users"):
        read_people([], file, False)
    with pytest.raises(Failure, match="Cannot read"):
        read_people(["a"], tmp_path / "none", False)


def test_an_authority_must_be_one(tmp_path: Path) -> None:
    assert checked_ca(None) is None
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("ca.pem", "none.pem"):
        with pytest.raises(Failure, match="as authority"):
            checked_ca(tmp_path / name)


def test_wrong_usage_exits_with_2(offhook: Cli) -> None:
    for arguments, word in (
        (["nonsense"], "There is no quickstart nonsense"),
        (["--own", "--url", "http://127.0.0.1:1"], "--own excludes"),
        (["--url", "127.0.0.1"], "no URL"),
        (["--password-stdin"], "Name users"),
        (["--user", "jane"], "no password for jane"),
    ):
        outcome = offhook("quickstart", *arguments)
        assert outcome.code == 2 and word in outcome.err, arguments
        assert len(outcome.err.splitlines()) == 1


def test_a_server_that_is_away_exits_with_4(offhook: Cli) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    outcome = offhook("quickstart", "--json", "--url", url, "--user", "jane", "--password-stdin", stdin="secret\n")
    assert outcome.code == 4
    told = json.loads(outcome.err)
    assert told["error"] == "unreachable"
    assert told["message"].startswith(f"No Offhook server answers at {url}: No answer to GET from {url}")
    assert outcome.out == ""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingTestServer]:
    with TestServer(tls=True, data_dir=tmp_path_factory.mktemp("server")) as server:
        yield server


def test_nobody_known_at_a_server(offhook: Cli, server: BlockingTestServer) -> None:
    outcome = offhook("quickstart", "--url", server.url)
    assert outcome.code == 2
    assert "name two users" in outcome.err
    outcome = offhook("quickstart", "--url", server.url, "--user", "jane", "--password-stdin", stdin="secret\n")
    assert outcome.code == 2
    assert API_KEY in outcome.err


async def test_what_a_servers_own_folder_tells(
    offhook: Cli, server: BlockingTestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(server.url)
    assert await known(place) == place
    monkeypatch.setenv(API_KEY, "from the environment")
    assert (await known(place)).api_key == "from the environment"
    monkeypatch.delenv(API_KEY)

    monkeypatch.setenv("OFFHOOK_DATA_DIR", str(server.data_dir))
    passwords = {"alice@example.com": "one", "bob@example.com": "two"}
    (server.data_dir / "demo-users.json").write_text(json.dumps(passwords))
    found = await known(place)
    assert found.api_key == server.api_key
    assert found.people == tuple(Person(name, password) for name, password in passwords.items())
    # What was given on the command line stays.
    people = (Person("jane", "secret"),)
    given = await known(Place(server.url, "my key", None, people))
    assert (given.api_key, given.people) == ("my key", people)
    # It is the same server under each name of this machine, and by TLS.
    for url in (f"http://localhost:{server.port}", f"https://localhost:{server.tls_port}"):
        assert (await known(Place(url))).people == found.people
    # A server that is another's is left alone, and so is the key of one that the environment names.
    for url in (f"http://127.0.0.1:{free_port()}", f"https://localhost:{server.port}", f"{server.url}/below"):
        assert await known(Place(url)) == Place(url)
    monkeypatch.setenv("OFFHOOK_ADMIN_URL", "http://127.0.0.1:9")
    assert (await known(place)).api_key is None


async def test_what_a_killed_server_left_is_nobodys(
    offhook: Cli, server: BlockingTestServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever has its address now must not get its users' passwords."""
    (tmp_path / "server.lock").write_text(json.dumps({"pid": 1, "urls": [server.url]}))
    (tmp_path / "demo-users.json").write_text(json.dumps({"alice@example.com": "one"}))
    monkeypatch.setenv("OFFHOOK_DATA_DIR", str(tmp_path))
    assert await known(Place(server.url)) == Place(server.url)


async def test_whether_a_server_answers(server: BlockingTestServer) -> None:
    assert await why_silent(Place(server.url)) is None
    assert "No answer to GET" in str(await why_silent(Place(f"http://127.0.0.1:{free_port()}")))
    assert "CERTIFICATE_VERIFY_FAILED" in str(await why_silent(Place(f"https://{server.tls_host}")))
    assert await why_silent(Place(f"{server.url}/none")) == "/healthz was answered with status 404"


def test_kandy_needs_a_server_without_a_path(offhook: Cli) -> None:
    with TestServer(settings={"base_path": "/chat"}) as below:
        users = ("--user", "jane", "--password-stdin", "--api-key", below.api_key)
        outcome = offhook("quickstart", "kandy-uc", "--url", below.url, *users, stdin="secret\n")
        assert outcome.code == 2 and "know no path" in outcome.err
        outcome = offhook("chat", "jane", "--url", below.url, "--password-stdin", stdin="secret\n")
        assert outcome.code == 2 and "know no path" in outcome.err
