"""STOMP transactions: frames that wait for their COMMIT (STOMP 1.2, "BEGIN", "COMMIT", "ABORT").

No ChatKitty client uses them. They end with the connection, without effect.
"""

from __future__ import annotations

from offhook.protocols.stomp import Frame


class TransactionError(Exception):
    """The client did not keep to the rules of transactions.

    Args:
        message: one sentence for the client.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Transactions:
    """The open transactions of one connection.

    Args:
        max_frames: frames that may wait in all of them, and transactions at once.
        max_body: bytes of the body of each.
    """

    __slots__ = ("_count", "_max_body", "_max_frames", "_open")

    def __init__(self, max_frames: int, max_body: int) -> None:
        self._max_frames = max_frames
        self._max_body = max_body
        self._open: dict[str, list[Frame]] = {}
        self._count = 0

    def begin(self, name: str | None) -> None:
        """Opens a transaction. Raises TransactionError."""
        if name is None or name in self._open or len(self._open) >= self._max_frames:
            raise TransactionError("BEGIN needs the name of a new transaction")
        self._open[name] = []

    def keep(self, name: str, frame: Frame) -> None:
        """Keeps a frame for its transaction's COMMIT. Raises TransactionError."""
        frames = self._open.get(name)
        if frames is None:
            raise TransactionError("There is no such transaction")
        if self._count >= self._max_frames or len(frame.body) > self._max_body:
            raise TransactionError("The transaction is too large")
        self._count += 1
        frames.append(frame)

    def finish(self, name: str | None) -> list[Frame]:
        """Closes a transaction and returns what was kept, as if sent now. Raises TransactionError."""
        frames = None if name is None else self._open.pop(name, None)
        if frames is None:
            raise TransactionError("There is no such transaction")
        self._count -= len(frames)
        for frame in frames:
            del frame.headers["transaction"]
        return frames
