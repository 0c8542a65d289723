"""A process that stores users and publications until it is killed, and says so after each.

Prints one line for each transaction once it is acknowledged: ``<user's name> <offset>``. Eight transactions are under
way at any time. Its arguments name an engine and where that engine's state is.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

from tests.contract.engines import reopened
from tests.contract.systems import a_user

from offhook.domain.events import UserUpdated, application_topic, name_in
from offhook.ports import Transaction


async def main(engine: str, place: str) -> None:
    system = await reopened(engine, place).open()
    application = await system.application()
    topic = application_topic(application.id)
    await system.broker.subscribe(topic)
    numbers = itertools.count()

    async def work() -> None:
        while True:
            name = f"user-{next(numbers)}"

            def add(tx: Transaction, name: str = name) -> None:
                user = tx.users.add(a_user(application.id, name))
                tx.publish(topic, UserUpdated(user))

            await system.store.transact(add)
            (offset,) = (heard.position.offset for heard in system.heard[-100:] if name_in(heard.event) == name)
            print(name, offset, flush=True)

    await asyncio.gather(*(work() for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
