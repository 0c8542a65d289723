"""What time does to sessions: leases are renewed, positions saved, and what is overdue is ended.

Nothing here depends on a disconnect having been noticed: a node that died stops renewing its lease, and any other node,
or the same one started again, finds its sessions and suspends them.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from offhook.codes import CloseReason, EndReason
from offhook.domain import sessions as rules
from offhook.domain.events import Topic
from offhook.domain.sessions import Session
from offhook.errors import OffhookError
from offhook.ports import Broker, Clock, Observer, Store, Transaction
from offhook.services.hub import Hub, LiveSession
from offhook.services.presence import leave
from offhook.services.reconcile import Reconciler
from offhook.services.sessions import BATCH, SessionService

SWEEP_EVERY = 0.5
"""Seconds between sweeps: how late an overdue session may be ended."""
SAVE_AFTER = 0.1
"""Seconds after which is saved what clients have seen, so that little is forgotten when the process is killed."""
SAVE_SHARE = 20
"""Saving takes at most one part in so many of the time, however many clients see however much ..."""
SAVE_AT_LATEST = 1.0
"""... unless that put it off for longer than this."""
PUNCTUAL = 0.75
"""Part of its own lease by which a node must have renewed it, if it is to judge others by theirs."""
RENEWALS_AT_ONCE = 3
"""Attempts to renew the lease that may wait for their answers: each begins when the one before has taken too long."""
JUDGE_EVERY = 1.0
"""Seconds between looks for nodes that are gone."""
FORGET_EVERY = 60.0
RECONCILE_EVERY = 30.0
"""Seconds between two comparisons of this node's connections with what is stored of them."""
RESYNC_EVERY = 300.0
"""Seconds after which all is learnt anew that other nodes say: one that dies between its commit and its words says
nothing, and nobody can notice that."""

log = structlog.get_logger(__name__)


class Reaper:
    """The periodic work of one node.

    Args:
        lease: seconds that this node's lease runs; renewed three times as often.
        retention: seconds that ended sessions stay in the ledger.
    """

    def __init__(
        self,
        store: Store,
        broker: Broker,
        hub: Hub,
        sessions: SessionService,
        clock: Clock,
        observer: Observer,
        reconciler: Reconciler,
        lease: float,
        retention: float,
    ) -> None:
        self._store = store
        self._broker = broker
        self._hub = hub
        self._sessions = sessions
        self._clock = clock
        self._observer = observer
        self._reconciler = reconciler
        self._lease = lease
        self._retention = retention
        self._node = sessions.node
        self._tasks: list[asyncio.Task[None]] = []
        self._dirty: set[LiveSession] = set()
        self._seen_more = asyncio.Event()
        self._renewed = self._judges_from = self._doubted_until = time.monotonic()

    def acked(self, live: LiveSession) -> None:
        """A client has seen more of its topics: its positions are to be saved soon."""
        if not self._dirty:
            self._seen_more.set()
        self._dirty.add(live)

    async def start(self) -> None:
        """Takes the node's lease and begins."""
        self._renewed = self._judges_from = time.monotonic()
        await self._acquire()
        self._tasks = [
            asyncio.create_task(self._renew(), name="lease"),
            asyncio.create_task(self._run(), name="reaper"),
            asyncio.create_task(self._save(), name="positions"),
        ]

    async def stop(self) -> None:
        """Ends, saves what is left to save and gives the lease back."""
        if not self._tasks:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._retry_suspensions()
        await self.save_positions()
        await self._broker.release_lease(_lease_name(self._node), self._node)

    async def _acquire(self) -> None:
        await self._broker.acquire_lease(_lease_name(self._node), self._node, self._lease)

    async def _renew(self) -> None:
        """Renews the lease, however long anything else takes, be it another attempt that gets no answer."""
        every = self._lease / 3
        attempts: set[asyncio.Task[bool]] = set()
        try:
            while True:
                await asyncio.sleep(max(0.0, self._renewed + every - time.monotonic()))
                if len(attempts) < RENEWALS_AT_ONCE:
                    attempts.add(asyncio.create_task(self._renew_once(), name="renewal"))
                done, attempts = await asyncio.wait(attempts, timeout=every, return_when=asyncio.FIRST_COMPLETED)
                if not any(attempt.result() for attempt in done):
                    await asyncio.sleep(SWEEP_EVERY)
        finally:
            for attempt in attempts:
                attempt.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)

    async def _renew_once(self) -> bool:
        began = time.monotonic()
        try:
            await self._acquire()
        except OffhookError as error:
            log.warning("lease_not_renewed", error=error.message)
            return False
        except Exception:
            log.exception("lease_not_renewed")
            return False
        # However long that took: the lease may have run out meanwhile.
        done = time.monotonic()
        gap, self._renewed = done - self._renewed, max(began, self._renewed)
        if gap >= self._lease * PUNCTUAL:
            # What kept this node from it may have kept the others, too, who are given the time to be back.
            self._judges_from = done + self._lease
        if gap >= self._lease:
            # Another node may have taken this one for dead, and may be about to say so of its sessions.
            self._doubted_until = done + max(self._lease, 2 * JUDGE_EVERY)
        return True

    async def _run(self) -> None:
        looked = forgot = reconciled = resynced = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            now = time.monotonic()
            await self._attempt(self._retry_suspensions)
            await self._attempt(self.sweep)
            if now - looked >= JUDGE_EVERY and self._may_judge():
                looked = now
                await self._attempt(self.bury_nodes)
            # Without the broker nothing is heard of what others say.
            unheard = RESYNC_EVERY if self._broker.connected else RECONCILE_EVERY
            if self._reconciler.behind or now - resynced >= unheard:
                resynced = now
                await self._attempt(self._reconciler.resync)
            if now - reconciled >= RECONCILE_EVERY or now < self._doubted_until:
                reconciled = now
                await self._attempt(self._reconciler.reconcile)
            if now - forgot >= FORGET_EVERY:
                forgot = now
                await self._attempt(self.forget)

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does a part of the work; if it fails, the others are done all the same."""
        try:
            await work()
        except OffhookError as error:
            log.warning("sweep_failed", work=work.__name__, error=error.message)
        except Exception:
            log.exception("sweep_failed", work=work.__name__)

    def _may_judge(self) -> bool:
        now = time.monotonic()
        return now >= self._judges_from and now - self._renewed < self._lease * PUNCTUAL

    async def _save(self) -> None:
        pause = SAVE_AFTER
        while True:
            await self._seen_more.wait()
            await asyncio.sleep(pause)
            self._seen_more.clear()
            began = time.monotonic()
            failed: Exception | None = None
            try:
                await self.save_positions()
            except Exception as error:
                failed = error
            pause = min(max(SAVE_AFTER, SAVE_SHARE * (time.monotonic() - began)), SAVE_AT_LATEST)
            if failed is not None:
                log.error("positions_not_saved", exc_info=failed)
                self._seen_more.set()

    async def sweep(self) -> None:
        """Lets users leave whose sessions are broken for too long, and ends sessions that nobody resumed."""
        while True:
            handled, ended = await self._store.transact(self._sweep)
            for session, reason in ended:
                await self._sessions.tell_ended([session], reason)
            if handled < BATCH:
                return

    def _sweep(self, tx: Transaction) -> tuple[int, Sequence[tuple[Session, EndReason]]]:
        now = self._clock.now()
        due = tx.sessions.due(now, BATCH)
        ended: list[tuple[Session, EndReason]] = []
        for session in due:
            reason = rules.overdue(session, now)
            if reason is not None:
                over = rules.end(session, now, reason)
                tx.sessions.save(over, rules.StoryEntry(now, rules.StoryKind.ENDED, reason.value))
                ended.append((over, reason))
            else:
                tx.sessions.save(replace(session, leave_at=None))
        for application_id, user_id in {(session.application_id, session.user_id) for session in due}:
            leave(tx, application_id, user_id, now)
        return len(due), ended

    async def bury_nodes(self) -> None:
        """Suspends the sessions of nodes whose lease ran out."""
        for node in await self._store.query(lambda tx: tx.sessions.active_nodes()):
            if node == self._node:
                continue
            count = BATCH
            # Asked before each batch: it may only have stood still, and takes back what was taken from it. Or this one
            # stood still itself, before the answer came.
            while count == BATCH and await self._broker.lease_holder(_lease_name(node)) is None and self._may_judge():
                log.warning("node_lost", node=node)
                lost = await self._store.transact(functools.partial(self._bury, node))
                for _ in lost:
                    self._observer.session_suspended(CloseReason.PEER_LOST)
                count = len(lost)

    def _bury(self, node: str, tx: Transaction) -> Sequence[Session]:
        now = self._clock.now()
        lost = tx.sessions.active_on(node, BATCH)
        policies = {
            application_id: application.sessions
            for application_id in {session.application_id for session in lost}
            if (application := tx.applications.get(application_id)) is not None
        }
        story = rules.story_of_close(CloseReason.PEER_LOST, "its server died", now)
        for session in lost:
            tx.sessions.save(rules.suspend(session, now, policies[session.application_id]), story)
        return lost

    async def save_positions(self) -> None:
        """Saves what clients have seen since the last time."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, set()
        # What a connection that is gone had seen was saved when it went; a newer one may have seen more since.
        here = [(live, dict(live.acked), live.proof) for live in dirty if not live.gone]
        rows: list[tuple[int, int, Mapping[Topic, int]]] = [
            (live.id, live.record.generation, acked) for live, acked, _ in here
        ]
        # Which messages a user got is known of the user, and counts beyond the session, too.
        marks = [(live.user_id, live.taken) for live in dirty if live.taken]

        def save(tx: Transaction) -> None:
            tx.sessions.save_positions(rows)
            if marks:
                tx.messages.mark_delivered(marks)

        try:
            await self._store.transact(save)
        except BaseException:
            self._dirty |= dirty
            raise
        for live, _, proof in here:
            if proof:
                live.outlet.saved(proof)

    async def forget(self) -> None:
        """Deletes old sessions from the ledger and used tokens that are too old anyway, a batch at a time."""
        before = self._clock.now() - timedelta(seconds=self._retention)
        forgotten = BATCH
        while forgotten == BATCH:
            forgotten = await self._store.transact(lambda tx: tx.sessions.forget(before, BATCH))
        forgotten = BATCH
        while forgotten == BATCH:
            forgotten = await self._store.transact(lambda tx: tx.forget_tokens(self._clock.now(), BATCH))

    async def _retry_suspensions(self) -> None:
        unsaved = self._sessions.unsaved
        for session_id in list(unsaved):
            again = unsaved.pop(session_id, None)
            if again is not None:
                await self._sessions.suspend(*again)
                if session_id in unsaved:
                    # Each try may take long while the store is away; the next time begins with another session.
                    return


def _lease_name(node: str) -> str:
    return f"node.{node}"
