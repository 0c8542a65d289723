"""Performs units of work: each in a transaction of its own, in a greenlet, and again where that may help."""

from __future__ import annotations

import asyncio
import random
import time
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from types import CodeType
from typing import TypeVar, cast

import structlog
from asyncpg.exceptions import InvalidParameterValueError
from sqlalchemy.util import greenlet_spawn

from offhook.errors import OffhookError
from offhook.storage.postgres.deliveries import Deliveries, Turn
from offhook.storage.postgres.driver import Connection
from offhook.storage.postgres.failures import Failure, RunAgain, failure_of, translated, unavailable
from offhook.storage.postgres.pool import Link, Pool
from offhook.storage.postgres.publishing import Receipt
from offhook.storage.postgres.rows import Mode
from offhook.storage.transaction import SQLTransaction

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds in all for which a unit of work is tried."""
QUEUE_PATIENCE = 10.0
"""Seconds for which it may wait for a connection before that."""
ATTEMPTS = 5
"""Times that a unit of work is run at most because of others, or of a connection that broke."""
PAUSE = 0.02
"""Seconds before the second attempt, on average; each further pause is twice as long."""
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_STATUS = "SELECT pg_xact_status($1::text::xid8)"
_STORED = """
SELECT true FROM journal
WHERE topic = $1::varchar AND "offset" = $2::bigint AND event = $3::bytea AND created_at = $4::bigint"""
_BOUNDS = """
SELECT (SELECT head FROM topics WHERE topic = $1::varchar),
    (SELECT min("offset") FROM journal WHERE topic = $1::varchar)"""

log = structlog.get_logger(__name__)


class _Retry(Exception):
    """An attempt failed in a way that another may not.

    Args:
        cause: what happened.
        users: users to hold from the start the next time.
        counted: whether it counts as one of the attempts.
    """

    def __init__(self, cause: BaseException, users: frozenset[int] = frozenset(), *, counted: bool = True) -> None:
        super().__init__()
        self.cause = cause
        self.users = users
        self.counted = counted


class Performer:
    """Performs units of work on the links of a pool.

    Args:
        pool: the links.
        deliveries: hands out what is published.
        on_change: called after each change with the number of events and the seconds that its commit took.
    """

    def __init__(self, pool: Pool, deliveries: Deliveries, on_change: Callable[[int, float], None]) -> None:
        self._pool = pool
        self._deliveries = deliveries
        self._on_change = on_change
        self._several: set[CodeType] = set()

    async def change(self, work: Callable[[SQLTransaction], T]) -> T:
        """Does what may write, and returns when it is durable. Raises as ``ports.Store.transact`` does."""
        users: frozenset[int] = frozenset()
        repeated = False

        async def attempt(link: Link) -> T:
            nonlocal users, repeated
            try:
                return await self._attempt(link, work, users, may_repeat=not repeated)
            except _Retry as retry:
                users |= retry.users
                repeated = repeated or isinstance(retry.cause, OffhookError)
                raise

        return await self._until_done(attempt, to_change=True)

    async def read(self, work: Callable[[SQLTransaction], T]) -> T:
        """Does what only reads. Raises as ``ports.Store.query`` does."""
        code = getattr(getattr(work, "func", work), "__code__", None)

        async def attempt(link: Link) -> T:
            if code is not None and code not in self._several:
                try:
                    return await self._single(link, work)
                except RunAgain:
                    # One statement needs no transaction; this work has several, and so they will always be in one.
                    self._several.add(code)
            return await self._snapshot(link, work)

        return await self._until_done(attempt)

    async def fetch(self, statement: Callable[[Link], Coroutine[object, object, T]]) -> T:
        """Executes one statement, which may be executed twice, by itself."""

        async def attempt(link: Link) -> T:
            try:
                result = await statement(link)
            except BaseException as error:
                known = translated(error) if isinstance(error, Exception) else error
                self._pool.release(link, broken=failure_of(error) is not Failure.REFUSED)
                raise _read_error(known) from error
            self._pool.release(link)
            return result

        return await self._until_done(attempt)

    # --- again and again

    async def _until_done(
        self, attempt: Callable[[Link], Coroutine[object, object, T]], *, to_change: bool = False
    ) -> T:
        until = time.monotonic() + PATIENCE
        pause, left = PAUSE, ATTEMPTS
        while True:
            try:
                link = await self._pool.acquire(to_change=to_change)
            except OffhookError:
                raise
            except Exception as error:
                if failure_of(error) is not Failure.LOST:
                    raise unavailable(error) from error
                cause: BaseException = error
            else:
                try:
                    return await attempt(link)
                except _Retry as retry:
                    if not retry.counted:
                        continue
                    left -= 1
                    cause = retry.cause
            # A server that is away may be back within the time, however often it is tried.
            if time.monotonic() + pause > until or left == 0:
                raise unavailable(cause) from cause
            log.debug("unit_retried", error=repr(cause))
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311
            pause = min(2 * pause, 0.5)

    # --- changes

    async def _attempt(
        self, link: Link, work: Callable[[SQLTransaction], T], users: frozenset[int], *, may_repeat: bool
    ) -> T:
        rows = link.rows
        rows.begin(Mode.CHANGE)
        link.publisher.begin()
        try:
            result, turn = await greenlet_spawn(self._work, link, work, users)
        except BaseException as error:
            cause = error if rows.failure is None else rows.failure
            held, violated = rows.users, rows.violated
            await self._roll_back(link, cause)
            if isinstance(cause, RunAgain):
                raise _Retry(cause, held | cause.users, counted=False) from None
            failure = failure_of(cause)
            if failure is Failure.CONTENDED or failure is Failure.LOST:
                raise _Retry(cause, held if failure is Failure.CONTENDED else frozenset()) from cause
            if failure is not None:
                raise unavailable(cause) from cause
            if violated and may_repeat and isinstance(cause, OffhookError):
                # Somebody took the key after this work looked for it, perhaps; then it finds that the next time.
                raise _Retry(cause, counted=False) from None
            raise cause from None
        return await self._commit(link, turn, result)

    def _work(self, link: Link, work: Callable[[SQLTransaction], T], users: frozenset[int]) -> tuple[T, Turn | None]:
        """Runs in a greenlet."""
        rows, publisher = link.rows, link.publisher
        if link.begun:
            link.begun = False
        else:
            rows.execute("BEGIN")
        if users:
            rows.hold(users)
        result = work(link.changes)
        publisher.flush()
        if rows.failure is not None:  # The work went on after it as if nothing had happened.
            raise rows.failure
        topics = publisher.topics
        return result, self._deliveries.enter(topics) if topics else None

    async def _commit(self, link: Link, turn: Turn | None, result: T) -> T:
        began = time.perf_counter()
        publications = link.publisher.publications() if turn is not None else ()
        xid, epoch, receipt = link.rows.xid, link.epoch, link.publisher.receipt
        committed, cause = False, None
        # Where somebody waits for the connection, the next transaction begins with the end of this one, which saves
        # that one a journey to the server.
        chain = self._pool.wanted
        try:
            status = await link.connection.execute("COMMIT AND CHAIN" if chain else "COMMIT")
            committed = status == "COMMIT"
            link.begun = chain
        except Exception as error:
            cause = error
        self._pool.release(link, broken=cause is not None)
        try:
            if cause is not None:
                committed = await self._outcome(xid, epoch, receipt, cause)
        finally:
            if turn is not None:
                await self._deliveries.settle(turn, publications if committed else ())
        if not committed:
            raise _Retry(cause or RuntimeError("the transaction was rolled back")) from cause
        self._on_change(len(publications), time.perf_counter() - began)
        return result

    async def _outcome(self, xid: str | None, epoch: str, receipt: Receipt | None, cause: Exception) -> bool:
        """Whether a transaction was committed whose commit was not answered.

        A server that crashed has forgotten the ids of transactions of which nothing had reached its disk, and gives
        them out again. So an id tells when a transaction is over, and that it was taken back; that it was committed is
        believed only if what it stored is there.

        Args:
            xid: the transaction's id, if it wrote anything.
            epoch: of the history that it belongs to. In another one the id is nobody's, or somebody else's.
            receipt: what it stored in the journal.
            cause: the failure of the commit.

        Raises:
            Unavailable: that cannot be found out.
        """
        if xid is None:  # There was nothing to commit.
            return True
        if failure_of(cause) is not Failure.LOST:  # It was answered: with a refusal.
            return False
        until = time.monotonic() + PATIENCE
        status: str | None = "in progress"
        while time.monotonic() < until:
            try:
                link = await self._pool.acquire()
            except Exception as error:
                log.debug("outcome_not_known_yet", error=str(error))
            else:
                if link.epoch != epoch:
                    self._pool.release(link)
                    status = None
                    break
                try:
                    status = await fate_of(link.connection, xid, receipt)
                except Exception as error:
                    self._pool.release(link, broken=True)
                    if failure_of(error) is not Failure.LOST:
                        break
                else:
                    self._pool.release(link)
                    if status != "in progress":
                        break
            await asyncio.sleep(PAUSE)
        log.warning("commit_unanswered", outcome=status, error=str(cause))
        if status not in ("committed", "aborted"):
            raise unavailable(cause) from cause
        return status == "committed"

    async def _roll_back(self, link: Link, cause: BaseException) -> None:
        broken = failure_of(cause) is Failure.LOST or not isinstance(cause, Exception | RunAgain | CancelledError)
        if not broken:
            try:
                await link.connection.execute("ROLLBACK")
            except Exception as error:
                log.debug("connection_given_up", error=str(error))
                broken = True
        self._pool.release(link, broken=broken)

    # --- queries

    async def _single(self, link: Link, work: Callable[[SQLTransaction], T]) -> T:
        """Does work that executes one statement at most. Raises RunAgain, keeping the link, if there are more."""
        link.rows.begin(Mode.SINGLE)
        try:
            result = await greenlet_spawn(work, link.reads)
            if link.rows.failure is not None:
                raise link.rows.failure
        except RunAgain:
            raise
        except BaseException as error:
            cause = error if link.rows.failure is None else link.rows.failure
            if isinstance(cause, RunAgain):
                raise cause from None
            self._pool.release(link, broken=failure_of(cause) is Failure.LOST)
            raise _read_error(cause) from cause
        self._pool.release(link)
        return result

    async def _snapshot(self, link: Link, work: Callable[[SQLTransaction], T]) -> T:
        link.rows.begin(Mode.SNAPSHOT)
        try:
            await link.connection.execute(_SNAPSHOT)
            result = await greenlet_spawn(work, link.reads)
            if link.rows.failure is not None:
                raise link.rows.failure
            await link.connection.execute("COMMIT")
        except BaseException as error:
            cause = error if link.rows.failure is None else link.rows.failure
            await self._roll_back(link, cause)
            raise _read_error(cause) from cause
        self._pool.release(link)
        return result


async def fate_of(connection: Connection, xid: str, receipt: Receipt | None) -> str | None:
    """What became of a transaction, as ``pg_xact_status`` says it; None if that cannot be told."""
    try:
        status = await connection.fetchval(_STATUS, xid)
    except InvalidParameterValueError:
        # The id is yet to be given out: the server has forgotten that it was before.
        return "aborted"
    if status != "committed":
        return cast(str | None, status)
    if receipt is None:
        return None
    stored = await connection.fetchval(_STORED, receipt.topic, receipt.offset, receipt.encoded, receipt.stored_at)
    if stored:
        return "committed"
    # Another transaction got its id, unless the entry is gone for no worse reason than its age.
    head, oldest = await connection.fetchrow(_BOUNDS, receipt.topic)
    return "aborted" if (head or 0) < receipt.offset or (oldest or head + 1) <= receipt.offset else None


def _read_error(cause: BaseException) -> BaseException:
    failure = failure_of(cause)
    if failure is None:
        return cause
    return _Retry(cause) if failure in (Failure.CONTENDED, Failure.LOST) else unavailable(cause)
