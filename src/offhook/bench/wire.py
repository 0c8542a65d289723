"""The client's side of the wire, as cheap as it can be: frames made beforehand, answers hardly looked at.

Client frames are masked with the key 0, which RFC 6455 allows: the server unmasks them as any other, and the load
generator saves the work.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import quote

TEXT, PING, PONG = 0x81, 0x89, 0x8A
USER_TOPICS = (
    "self",
    "channels",
    "messages",
    "notifications",
    "contacts",
    "participants",
    "users",
    "reactions",
    "threads",
    "calls",
)
"""What a client of the second generation subscribes to, in its order (ChatKitty protocol notes, 2.4)."""
PREFIX = "/application/v1/"
RELAY_IDS = ("b-user", "b-write", "b-read")


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One WebSocket frame as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


def server_frame(payload: bytes) -> bytes:
    """One WebSocket text frame as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((TEXT, size)) + payload
    if size < 65536:
        return bytes((TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((TEXT, 127)) + size.to_bytes(8, "big") + payload


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Takes server frames apart.

    Args:
        data: what was read, from the start of a frame.

    Returns:
        The whole frames as (first byte, payload), and the bytes of one that is not whole yet.
    """
    frames: list[tuple[int, bytes]] = []
    at, end = 0, len(data)
    while end - at >= 2:
        size, start = data[at + 1], at + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : start], "big")
        if end < start or end < start + size:
            break
        frames.append((data[at], data[start : start + size]))
        at = start + size
    return frames, data[at:] if at else data


def upgrade(host: str, api_key: str, nonce: bytes) -> bytes:
    """The HTTP request that opens a connection (ChatKitty protocol notes, 2.1).

    Args:
        host: of the server, with its port.
        api_key: of the application.
        nonce: 16 bytes.
    """
    return (
        f"GET /rtm/websocket?api-key={quote(api_key)} HTTP/1.1\r\nHost: {host}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(nonce).decode()}\r\nSec-WebSocket-Protocol: v12.stomp\r\n"
        "Origin: https://app.example.com\r\nUser-Agent: Mozilla/5.0\r\nAccept-Encoding: gzip, deflate\r\n\r\n"
    ).encode()


def connect(user: str, password: str | None = None, session: str | None = None) -> bytes:
    """CONNECT, which resumes a session if one is named (ChatKitty protocol notes, 2.2 and 2.7)."""
    params = "" if session is None else f"StompX-Auth-Session-ID:{session}\n"
    if password is not None:
        encoded = base64.b64encode(f'{{"password":"{password}"}}'.encode()).decode()
        params += f"StompX-Auth-Params:{encoded}\n"
    return client_frame(
        f"CONNECT\nStompX-User:{user}\nStompX-User-Agent:ChatKitty-JS-Core/1.11.0\n{params}"
        "accept-version:1.2\nheart-beat:60000,10000\n\n\0".encode()
    )


def subscribe(subscription: str, destination: str, receipt: str | None = None) -> bytes:
    """SUBSCRIBE to a topic, or without a receipt a relay or the error queue (ChatKitty protocol notes, 3.1-3.3)."""
    extra = "" if receipt is None else f"receipt:{receipt}\nack:client-individual\n"
    return client_frame(f"SUBSCRIBE\n{extra}id:{subscription}\ndestination:{destination}\n\n\0".encode())


def send(destination: str, receipt: str, body: bytes) -> bytes:
    """SEND with a receipt (ChatKitty protocol notes, 3.5)."""
    head = (
        f"SEND\ndestination:{destination}\ncontent-type:application/json;charset=UTF-8\n"
        f"receipt:{receipt}\ncontent-length:{len(body)}\n\n"
    )
    return client_frame(head.encode() + body + b"\0")


def relay(name: str) -> str:
    """The destination of a relay or an action."""
    return PREFIX + name


def topics(user_id: int) -> Iterator[bytes]:
    """The SUBSCRIBEs to a user's topics. Their ids are as long as those of real clients."""
    for key in USER_TOPICS:
        name = f"{key:-<36}"
        yield subscribe(f"subscription-id-{name}", f"/topic/v1.users.{user_id}.{key}", f"receipt-{name}")


GREETING = (
    subscribe(RELAY_IDS[0], relay("user.relay")),
    subscribe("b-errors", "/user/queue/v1/errors")
    + subscribe(RELAY_IDS[1], relay("user.write_file_access_grant.relay")),
    subscribe(RELAY_IDS[2], relay("user.read_file_access_grant.relay")),
)
"""What a client says after CONNECTED, each after the answer to the one before (ChatKitty protocol notes, 2.4)."""


def header(frame: bytes, name: bytes) -> bytes | None:
    """The value of a header of a STOMP frame, or None."""
    start = frame.find(b"\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 2
    return frame[start : frame.index(b"\n", start)]


def acknowledge(frame: bytes) -> bytes | None:
    """The ACK of an event, or None if it is none (ChatKitty protocol notes, 3.3)."""
    name, subscription = header(frame, b"ack"), header(frame, b"subscription")
    if name is None or subscription is None:
        return None
    return client_frame(b"ACK\nid:" + name + b"\nsubscription:" + subscription + b"\n\n\0")
