"""Used tokens in the database: those that are good for one use, until they are good for none."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import bindparam, delete, select

from offhook.storage.statements import Rows, Statement, UniqueViolation, adding
from offhook.storage.tables import used_tokens

_USE = adding(used_tokens, {name: bindparam(name, type_=used_tokens.c[name].type) for name in ("digest", "until")})
_FORGET = Statement(
    delete(used_tokens).where(
        used_tokens.c.digest.in_(
            select(used_tokens.c.digest)
            .where(used_tokens.c.until < bindparam("before"))
            .order_by(used_tokens.c.until)
            .limit(bindparam("limit"))
        )
    )
)

_USED = Statement(select(used_tokens.c.digest).where(used_tokens.c.digest == bindparam("digest")))


class UsedTokens:
    """What ``ports.Transaction`` says of tokens, on a connection.

    Args:
        rows: executes its statements.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def use(self, digest: str, until: datetime) -> bool:
        """See ``ports.Transaction.use_token``."""
        try:
            self._rows.run(_USE, digest=digest, until=until)
        except UniqueViolation:
            return False
        return True

    def used(self, digest: str) -> bool:
        """See ``ports.Transaction.token_used``."""
        return self._rows.first(_USED, digest=digest) is not None

    def forget(self, before: datetime, limit: int) -> int:
        """See ``ports.Transaction.forget_tokens``."""
        return self._rows.run(_FORGET, before=before, limit=limit)
