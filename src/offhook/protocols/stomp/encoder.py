"""STOMP 1.2 frames to bytes. Pure functions; each gives one whole frame, or a named part of one.

An event that goes to many subscribers is encoded once: :func:`message_tail` is shared by all of them, and
only :func:`message_prefix`, made once per subscription, differs.
"""

from __future__ import annotations

from collections.abc import Mapping

from offhook.protocols.stomp.frames import UNESCAPED_COMMANDS, escape

HEART_BEAT = b"\n"
"""What keeps an idle stream alive in either direction."""


def encode(command: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Encode any frame.

    Args:
        command: such as ``RECEIPT``.
        headers: in the order in which they are to be sent; escaped here where the command calls for it.
        body: its ``content-length`` is added unless ``headers`` has one.

    Raises:
        ValueError: a header cannot be expressed: a NUL anywhere, or in CONNECT, STOMP and CONNECTED, which
            know no escapes, a line end, or a colon in a name.
    """
    text = _literal_headers(headers) if command in UNESCAPED_COMMANDS else _headers(headers)
    if body and "content-length" not in headers:
        text += f"content-length:{len(body)}\n"
    return f"{command}\n{text}\n".encode() + body + b"\0"


def encode_connected(
    session: str, heart_beat: tuple[int, int] = (0, 0), server: str = "offhook", user_name: str | None = None
) -> bytes:
    """Encode the answer to CONNECT (ChatKitty protocol notes, section 2.3).

    Args:
        session: the id that a client repeats when it comes back.
        heart_beat: milliseconds between heart-beats that the server can send, and wants; 0 is none.
        server: product token.
        user_name: the user of the session, if it is to be told.

    Raises:
        ValueError: a value holds a line end or a NUL, for which CONNECTED has no escape.
    """
    headers = {
        "version": "1.2",
        "session": session,
        "heart-beat": f"{heart_beat[0]},{heart_beat[1]}",
        "server": server,
    }
    if user_name is not None:
        headers["user-name"] = user_name
    return encode("CONNECTED", headers)


def encode_receipt(receipt_id: str) -> bytes:
    """Encode the acknowledgement of the frame whose ``receipt`` header was ``receipt_id``."""
    return f"RECEIPT\nreceipt-id:{escape(receipt_id)}\n\n\0".encode()


def encode_error(
    message: str, body: bytes, receipt_id: str | None = None, extra: Mapping[str, str] | None = None
) -> bytes:
    """Encode an ERROR, after which the connection must be closed (ChatKitty protocol notes, section 2.6).

    Args:
        message: one short sentence.
        body: JSON.
        receipt_id: the ``receipt`` of the frame that caused it, if it had one.
        extra: further headers, such as ``version`` when no common version exists.
    """
    headers = {"message": message, "content-type": "application/json"}
    if receipt_id is not None:
        headers["receipt-id"] = receipt_id
    return encode("ERROR", {**headers, **(extra or {})}, body)


def message_prefix(subscription: str, destination: str) -> bytes:
    """The part of a MESSAGE that is the receiver's own; followed by a :func:`message_tail`.

    Args:
        subscription: the receiver's name for its subscription.
        destination: the topic or queue, as the receiver wrote it.
    """
    return f"MESSAGE\nsubscription:{escape(subscription)}\ndestination:{escape(destination)}\n".encode()


def message_tail(message_id: str, body: bytes, ack: str | None = None, extra: Mapping[str, str] | None = None) -> bytes:
    """The rest of a MESSAGE, the same for every receiver, to follow a :func:`message_prefix`.

    Args:
        message_id: unique on the connection.
        body: JSON.
        ack: what the client is to name in its ACK.
        extra: further headers, such as ``receipt-id``.
    """
    text = f"message-id:{escape(message_id)}\n"
    if ack is not None:
        text += f"ack:{escape(ack)}\n"
    if extra:
        text += _headers(extra)
    return f"{text}content-type:application/json\ncontent-length:{len(body)}\n\n".encode() + body + b"\0"


def _headers(headers: Mapping[str, str]) -> str:
    return "".join([f"{escape(name)}:{escape(value)}\n" for name, value in headers.items()])


def _literal_headers(headers: Mapping[str, str]) -> str:
    text = "".join([f"{name}:{value}\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or "\r" in text or "\0" in text or ":" in "".join(headers):
        raise ValueError("A header holds what cannot be sent unescaped")
    return text
