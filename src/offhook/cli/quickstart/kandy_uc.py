"""The quickstart of Kandy UC: connecting and disconnecting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offhook.cli.quickstart.kandy_events import told_connection, told_error
from offhook.cli.quickstart.player import Player, Wrong, expect

if TYPE_CHECKING:
    from offhook.cli.quickstart.place import Person, Place
    from offhook.client.transport import Transport
    from offhook.kandy import AuthChange, AuthError


async def play(player: Player, place: Place, person: Person, transport: Transport) -> None:
    """Connects with a wrong password, which fails readably; then with the right one; then disconnects."""
    from offhook import kandy

    errors: list[str] = []

    async with player.step("create a client"):
        client = kandy.create(place.kandy("uc"), product="uc", transport=transport)

    def changed(event: AuthChange) -> None:
        connected = client.get_connection().is_connected
        player.event("auth:change", f"Connection state changed. Connected: {str(connected).lower()}")

    def failed(event: AuthError) -> None:
        errors.append(event.error.code)
        told_error(player, "auth:error", "Connect error", event.error)

    async with client:
        client.on("auth:change", changed)
        client.on("auth:error", failed)

        async with player.step("connect with a wrong password"):
            try:
                await client.connect(username=person.name, password=f"not {person.password}")
            except kandy.KandyError as error:
                expect("the error's code", "authentication:9", error.code)
            else:
                raise Wrong("A wrong password was taken")
            expect("auth:error", ["authentication:9"], errors)
            told_connection(player, client.get_connection())
            expect("isConnected", False, client.get_connection().is_connected)
            expect("isPending", False, client.get_connection().is_pending)

        async with player.step(f"connect as {person.name}"):
            await client.connect(username=person.name, password=person.password)
            connection = client.get_connection()
            told_connection(player, connection)
            expect("isConnected", True, connection.is_connected)
            expect("isPending", False, connection.is_pending)
            expect("error", None, connection.error)
            expect("the user", person.name, client.get_user_info().username)

        async with player.step("disconnect"):
            await client.disconnect()
            told_connection(player, client.get_connection())
            expect("isConnected", False, client.get_connection().is_connected)
            expect("errors since then", ["authentication:9"], errors)
