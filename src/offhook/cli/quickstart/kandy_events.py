"""What the quickstarts of Kandy write for their events, told to the player."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offhook.cli.quickstart.player import Player
    from offhook.domain.values import JsonObject
    from offhook.kandy import Connection, KandyError, Subscriptions


def told_error(player: Player, event: str, label: str, error: KandyError) -> None:
    """An error event, in the words of the quickstart: ``Connect error: MESSAGE (CODE)``."""
    data: JsonObject = {"message": error.message, "code": error.code}
    player.event(event, f"{label}: {error.message} ({error.code})", data)


def told_connection(player: Player, connection: Connection) -> None:
    """What ``getConnection`` returns, as the quickstarts show it."""
    data: JsonObject = {
        "isConnected": connection.is_connected,
        "isPending": connection.is_pending,
        "error": None if connection.error is None else connection.error.code,
    }
    shown = ", ".join(f"{name}: {_javascript(value)}" for name, value in data.items())
    player.value("getConnection", f"{{ {shown} }}", data)


def told_services(player: Player, services: Subscriptions) -> None:
    """What ``services.getSubscriptions`` returns."""
    data: JsonObject = {
        "subscribed": list(services.subscribed),
        "available": list(services.available),
        "isPending": services.is_pending,
    }
    player.value("getSubscriptions", f"Subscribed services: {','.join(services.subscribed)}", data)


def _javascript(value: object) -> str:
    if value is None:
        return "undefined"
    return str(value).lower() if isinstance(value, bool) else str(value)
