"""A process that stores users and publications until it is killed, and says so after each.

Prints one line for each transaction once it is acknowledged: ``<user's name> <offset>``. Eight transactions are under
way at any time.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from tests.contract.systems import SQLiteEngine, a_user

from offhook.domain.events import UserUpdated, application_topic
from offhook.ports import Transaction


async def main(path: Path) -> None:
    system = await SQLiteEngine(path.parent).open()
    application = await system.application()
    numbers = itertools.count()

    async def work() -> None:
        while True:
            name = f"user-{next(numbers)}"

            def add(tx: Transaction, name: str = name) -> int:
                user = tx.users.add(a_user(application.id, name))
                return tx.publish(application_topic(application.id), UserUpdated(user)).offset

            print(name, await system.store.transact(add), flush=True)

    await asyncio.gather(*(work() for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
