"""What a running server says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offhook.domain.accounts import Application
from offhook.server.listeners import Endpoint


@dataclass(frozen=True, slots=True)
class ServeInfo:
    """What to tell whoever started the server.

    Attributes:
        endpoints: where it listens.
        base_path: the path prefix under which everything is.
        application: the application to try first, or None if there are several and none is the default.
        authority: PEM file of the development authority that clients must trust, or None.
        data_dir: where it keeps its data.
        node: its name among the nodes of the system.
    """

    endpoints: Sequence[Endpoint]
    base_path: str
    application: Application | None
    authority: Path | None
    data_dir: Path
    node: str = ""

    @property
    def urls(self) -> Sequence[str]:
        """Where it serves."""
        return tuple(endpoint.url + self.base_path for endpoint in self.endpoints)
