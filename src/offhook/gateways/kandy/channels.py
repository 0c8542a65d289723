"""Notification channels: the paths of the sockets (Kandy protocol notes, 4.1).

Most clients show nothing else when they open their socket, so the path is a credential: it names the session and is
signed under the server's key. No table of channels is needed, and one that somebody made up costs no look-up.
"""

from __future__ import annotations

from offhook.services.signing import Signer

PREFIX = "/websocket/"
_PURPOSE = "channel"
_MAX = 100


def channel_of(session_id: int, signer: Signer) -> str:
    """The path of a session's notification socket."""
    return PREFIX + signer.sign(_PURPOSE, str(session_id))


def parse_channel(path: str, signer: Signer) -> int | None:
    """The id of the session whose socket a path is for, or None if it is none of ours."""
    if len(path) > _MAX or not path.startswith(PREFIX):
        return None
    plain = signer.check(_PURPOSE, path.removeprefix(PREFIX).rstrip("/"))
    return None if plain is None else int(plain)


def parse_channel_id(name: str, signer: Signer) -> int | None:
    """As ``parse_channel``, for the part behind the prefix alone."""
    return parse_channel(PREFIX + name, signer)
