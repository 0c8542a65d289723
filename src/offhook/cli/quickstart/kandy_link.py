"""The quickstart of Kandy Link: setting credentials, subscribing for services, and ending that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offhook.cli.quickstart.kandy_events import told_error, told_services
from offhook.cli.quickstart.player import Player, Wrong, expect

if TYPE_CHECKING:
    from offhook.cli.quickstart.place import Person, Place
    from offhook.client.transport import Transport
    from offhook.kandy import AuthChange, AuthError, Client, SubscriptionChange, SubscriptionError, SubscriptionResub

SERVICES = ("call", "Presence", "IM")


async def play(player: Player, place: Place, person: Person, transport: Transport) -> None:
    """Subscribes with a wrong password, which fails readably; then with the right one; unsubscribes; is destroyed."""
    from offhook import kandy

    async with player.step("create a client"):
        client = kandy.create(place.kandy("link"), product="link", transport=transport)

    async with client:
        errors = _listen(player, client)

        async with player.step("set credentials with a wrong password"):
            # Credentials are sent with requests; setting them asks nobody.
            client.set_credentials(username=person.name, password=f"not {person.password}")
            await player.until(lambda: client.get_user_info().username == person.name)

        async with player.step("subscribe with them"):
            try:
                await client.services.subscribe(SERVICES, force_log_out=True)
            except kandy.KandyError as error:
                expect("the error's code", "authentication:4", error.code)
            else:
                raise Wrong("A wrong password was taken")
            expect("subscription:error", ["authentication:4"], errors)
            expect("the subscribed services", [], list(client.services.get_subscriptions().subscribed))

        async with player.step(f"set credentials of {person.name}"):
            client.set_credentials(username=person.name, password=person.password)

        async with player.step("subscribe for services"):
            await client.services.subscribe(SERVICES, force_log_out=True)
            services = client.services.get_subscriptions()
            told_services(player, services)
            expect("the subscribed services", sorted(SERVICES), sorted(services.subscribed))
            expect("isPending", False, services.is_pending)

        async with player.step("unsubscribe from them"):
            await client.services.unsubscribe(SERVICES)
            services = client.services.get_subscriptions()
            told_services(player, services)
            expect("the subscribed services", [], list(services.subscribed))
            expect("errors since then", ["authentication:4"], errors)

        async with player.step("destroy the client"):
            await client.destroy()
            # "Tear down the SDK and render it unusable."
            try:
                client.set_credentials(username=person.name, password=person.password)
            except kandy.ClientClosed:
                player.value("set_credentials", "Kandy SDK has been uninitialized.")
            else:
                raise Wrong("A destroyed client took credentials")


def _listen(player: Player, client: Client) -> list[str]:
    """Tells every event of the quickstart. Returns the codes of errors, as they come."""
    errors: list[str] = []

    def credentials(event: AuthChange) -> None:
        player.event("auth:change", f"Credentials {'set' if client.get_user_info().username else 'unset'}")

    def refused(event: AuthError) -> None:
        errors.append(event.error.code)
        told_error(player, "auth:error", "Connect error", event.error)

    def subscription(event: SubscriptionChange) -> None:
        subscribed = client.services.get_subscriptions().subscribed
        text = f"Subscription state changed. Subscribed services: {','.join(subscribed)}"
        player.event("subscription:change", text, {"subscribed": list(subscribed), "reason": event.reason})

    def again(event: SubscriptionResub) -> None:
        text = "Failed to resubscribe to services" if event.is_failure else "Resubscribed to services"
        player.event("subscription:resub", text)

    def failed(event: SubscriptionError) -> None:
        errors.append(event.error.code)
        told_error(player, "subscription:error", "Subscription error", event.error)

    client.on("auth:change", credentials)
    client.on("auth:error", refused)
    client.on("subscription:change", subscription)
    client.on("subscription:resub", again)
    client.on("subscription:error", failed)
    return errors
