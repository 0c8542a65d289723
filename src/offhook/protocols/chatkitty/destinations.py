"""Destinations: the strings by which clients name relays, actions and topics (ChatKitty protocol notes, 1.4 and 7.2).

Clients send back verbatim what the server gave them, but for a few that they know by heart, and but for the size and
sort order that some put into the relays of lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

APPLICATION = "/application/"
PREFIX = "/application/v1/"
ERROR_QUEUES = frozenset({"/user/queue/v1/errors", "/user/queue/errors"})
USER_TOPICS = (
    "self",
    "elements",
    "features",
    "styles",
    "channels",
    "messages",
    "readReceipts",
    "notifications",
    "contacts",
    "participants",
    "users",
    "reactions",
    "threads",
    "calls",
)
"""The topics of a user, in the order in which the newest clients subscribe to them."""

_USER_TOPIC = "/topic/v1.users."
_TOPIC_KEYS = {key: key for key in USER_TOPICS}
MAX_PAGE = 1_000_000
MAX_SIZE = 100
DEFAULT_SIZE = 25


class DestinationError(ValueError):
    """A destination is not of the grammar."""


@dataclass(frozen=True, slots=True)
class ListPart:
    """The page, size and order that a list's relay asks for.

    Attributes:
        page: from 0.
        size: items a page, at most MAX_SIZE.
        sort: ``property,asc`` or ``property,desc``, or empty.
    """

    page: int = 0
    size: int = DEFAULT_SIZE
    sort: str = ""


def local_part(destination: str) -> str | None:
    """What follows ``/application/`` and the optional ``v1/``, or None if it is not such a destination."""
    if destination.startswith(PREFIX):
        return destination[len(PREFIX) :]
    if destination.startswith(APPLICATION):
        return destination[len(APPLICATION) :]
    return None


def user_topic(user_id: int, key: str) -> str:
    """The topic of a user named by one of USER_TOPICS."""
    return f"{_USER_TOPIC}{user_id}.{key}"


def parse_user_topic(destination: str) -> tuple[int, str] | None:
    """The user id and key of a user's topic, or None if it is none. The key is one shared string."""
    if not destination.startswith(_USER_TOPIC):
        return None
    number, _, key = destination[len(_USER_TOPIC) :].partition(".")
    known = _TOPIC_KEYS.get(key)
    if known is None or not _is_id(number):
        return None
    return int(number), known


def list_relay(base: str, page: int | None = None, size: int | None = None, sort: str = "") -> str:
    """The relay of a list's page.

    Without a page it is the first one, with size and sort order left open for the client to fill in.
    """
    if page is None:
        return f"{PREFIX}{base}.relay.page.0.size..sort."
    return f"{PREFIX}{base}.relay.page.{page}.size.{size}.sort.{quote(sort, safe=',.')}"


def parse_list(local: str) -> tuple[str, ListPart] | None:
    """Splits a list's relay, without its prefix, into its base and the page asked for; None if it is no list.

    Raises:
        DestinationError: page or size is not a number.
    """
    base, mark, rest = local.partition(".relay.page.")
    if not mark:
        return None
    page, _, rest = rest.partition(".size.")
    size, mark, sort = rest.partition(".sort.")
    if not mark or not _is_id(page) or (size and not _is_id(size)):
        raise DestinationError("the destination of a list must end with page.<n>.size.<n>.sort.<order>")
    number = int(page)
    items = int(size) if size else DEFAULT_SIZE
    if number > MAX_PAGE or items < 1:
        raise DestinationError("the page is out of bounds")
    return base, ListPart(number, min(items, MAX_SIZE), unquote(sort))


def split_item(local: str, collection: str) -> tuple[int, str] | None:
    """The id and verb of ``{collection}/{id}.{verb}``, or None."""
    if not local.startswith(collection + "/"):
        return None
    number, dot, verb = local[len(collection) + 1 :].partition(".")
    return (int(number), verb) if dot and _is_id(number) else None


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 16
