"""Resources and pages as servers send them, ours and others (ChatKitty protocol notes, 4 and 7)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

from offhook.chatkitty import ChatKittyBadAnswer, ChatKittyTimedOut, Failed, PageOutOfBoundsError, Paginator, User
from offhook.client.chatkitty.resources import read, read_current_user, whole

JANE: dict[str, object] = {
    "id": 12,
    "type": "PERSON",
    "name": "jane@example.test",
    "displayName": "Jane",
    "displayPictureUrl": "https://chat.example.test/v1/picture/Jane",
    "isGuest": True,
    "presence": {"status": "AVAILABLE", "online": True},
    "callStatus": "AVAILABLE",
    "properties": {"a": [1, {"b": None}]},
    "_relays": {"self": "/application/v1/user.relay"},
    "_topics": {"self": "/topic/1"},
    "_actions": {"update": "/application/v1/user.update"},
    "_streams": {"displayPicture": "/streams/1"},
    "newerMember": {"deep": [1]},
}


def test_the_whole_user_goes_back() -> None:
    user = read_current_user(JANE)
    assert whole(user) == JANE
    changed = user.replace(display_name="Jane II", status="AWAY", properties={})
    presence = {"status": "AWAY", "online": True}
    assert whole(changed) == {**JANE, "displayName": "Jane II", "presence": presence, "properties": {}}
    assert whole(user) == JANE


def test_little_is_enough() -> None:
    user = read_current_user({"id": 1, "name": "jane"})
    assert (user.display_name, user.presence.online, user.properties) == ("", False, {})
    wrong: object
    for wrong in ({"id": "1", "name": "jane"}, {"name": "jane"}, [], None, {"id": 1, "name": "j", "presence": 7}):
        with pytest.raises(ChatKittyBadAnswer):
            read_current_user(wrong)
    with pytest.raises(ChatKittyBadAnswer, match="User"):
        read("jane", User)


class Book:
    """Pages by their relays, as a server would answer them."""

    def __init__(self, pages: Mapping[str, object]) -> None:
        self.pages = pages
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    async def ask(self, destination: str, parameters: Mapping[str, str] | None = None, /) -> object:
        self.asked.append((destination, dict(parameters or {})))
        if destination not in self.pages:
            raise ChatKittyTimedOut("No answer")
        return self.pages[destination]


def _user(number: int) -> dict[str, object]:
    return {"id": number, "name": f"u{number}"}


async def test_pages_keep_the_parameters_and_end_where_relays_do() -> None:
    book = Book(
        {
            "1": {"_embedded": {"users": [_user(1), _user(2)]}, "_relays": {"self": "1", "next": "2"}},
            "2": {"_relays": {"self": "2", "prev": "1", "next": "3"}},
            "3": {"_embedded": {"users": [_user(3)]}, "page": {"number": 2, "new": 1}, "_relays": {"next": "4"}},
        }
    )
    first = await Paginator.first(book.ask, "1", User, "users", {"online": "true"})
    assert [user.id for user in first.items] == [1, 2] and not first.has_prev_page
    with pytest.raises(PageOutOfBoundsError):
        _ = first.prev_page()
    users = aiter(first)
    assert [(await anext(users)).id for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ChatKittyTimedOut):
        await anext(users)
    assert book.asked == [(name, {"online": "true"}) for name in ("1", "2", "3", "4")]
    second = (await first.next_page()).unwrap().paginator
    assert second.items == () and second.has_prev_page
    third = (await second.next_page()).unwrap().paginator
    assert third.numbers.number == 2
    assert isinstance(await third.next_page(), Failed)
    with pytest.raises(ChatKittyBadAnswer, match="without items"):
        Paginator(book.ask, User, "items", {}, book.pages["1"])


def test_importing_is_quick_and_connects_to_nothing() -> None:
    code = "import sys, offhook.chatkitty; sys.exit(len({'httpx', 'websockets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
