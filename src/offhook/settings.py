"""Typed settings: ``offhook.toml`` < environment (``OFFHOOK_…``) < command-line flags.

In the file every setting is a key of the top level; in the environment it is ``OFFHOOK_`` and its name in capitals.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

DEFAULT_CONFIG = Path("offhook.toml")


class Settings(BaseSettings):
    """Everything that can be set. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="OFFHOOK_", extra="forbid", frozen=True, ser_json_inf_nan="strings")

    # where
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8686, ge=0, le=65535, description="Port of plain HTTP and WebSocket; 0 picks a free one.")
    tls_port: int = Field(8687, ge=0, le=65535, description="Port of HTTPS and secure WebSocket.")
    tls_dev: bool = Field(False, description="Serve TLS with a certificate of a local development authority.")
    tls_cert: Path | None = Field(None, description="PEM file with the TLS certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file with the TLS certificate's key.")
    base_path: str = Field("", pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="Path prefix under which all is served.")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#]+(/[^?#]*[^/?#])?$",
        description="URL that clients see; else taken from requests.",
    )
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses or networks whose forwarded headers count.")
    allowed_origins: tuple[str, ...] = Field(("*",), description="Origins of pages that may connect; * for all.")

    # what it keeps
    secret_key: str | None = Field(
        None,
        min_length=32,
        repr=False,
        description="Key that signs session tokens and grants; made and kept in data_dir unless set.",
    )
    data_dir: Path = Field(Path("offhook-data"), description="Folder of the database, keys and files.")
    database_url: str | None = Field(
        None,
        repr=False,
        description="Database: sqlite:///PATH, or postgresql://USER:PASSWORD@HOST:PORT/NAME; "
        "a SQLite file in data_dir unless set.",
    )
    database_pool: int = Field(10, ge=2, le=1000, description="Connections to a PostgreSQL database, for each process.")
    broker_url: str = Field(
        "memory://",
        repr=False,
        description="Broker; in this process unless set. redis://, rediss://, redis+cluster:// or rediss+cluster://.",
    )
    broker_prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="Begins the names of the channels in Redis; made of the database's own name of itself unless set.",
    )
    durability: Literal["full", "normal"] = Field(
        "full", description="full: what is acknowledged survives a power cut; normal: only the process's death."
    )
    session_retention: float = Field(30 * 86400.0, ge=0, description="How long ended sessions stay in the ledger.")
    history_size: int = Field(10_000, ge=1, description="Events kept of each topic for sessions that resume.")
    history_seconds: float = Field(25 * 3600.0, gt=0, description="How long they are kept.")

    # functions
    functions: str | None = Field(None, description="Python module with the applications' functions.")
    function_timeout: float = Field(5.0, gt=0, description="Time a function has.")

    # sessions
    node_lease: float = Field(15.0, gt=0, description="Sessions of a dead process count as lost after this long.")
    connect_timeout: float = Field(10.0, gt=0, description="Time a new connection has to say CONNECT.")
    ping_interval: float = Field(20.0, gt=0, description="How often a WebSocket is probed.")
    ping_timeout: float = Field(20.0, gt=0, description="How long a probe may go unanswered.")
    write_timeout: float = Field(30.0, gt=0, description="How long a client may read nothing while data waits.")
    drain_seconds: float = Field(10.0, ge=0, description="Over how long clients are sent away at shutdown.")

    # calls
    turn_secret: str | None = Field(
        None,
        min_length=16,
        repr=False,
        description="Secret shared with the TURN server (coturn's static-auth-secret); made of secret_key unless set.",
    )
    turn_lifetime: float = Field(86_400.0, ge=60, description="How long a user name and password for it are good.")

    # limits
    max_connections: int = Field(20_000, ge=1, description="Connections at once.")
    max_connections_per_address: int = Field(20_000, ge=1, description="Connections at once from one address.")
    max_frame: int = Field(1024 * 1024, ge=1024, description="Bytes of one STOMP frame or WebSocket message.")
    max_body: int = Field(64 * 1024, ge=1024, description="Bytes of one request's JSON body.")
    max_upload: int = Field(5 * 1024 * 1024, ge=1024, description="Bytes of an uploaded picture.")
    max_write_buffer: int = Field(1024 * 1024, ge=65536, description="Bytes that may wait for one slow client.")
    max_subscriptions: int = Field(1000, ge=20, description="Subscriptions of one connection.")
    connect_rate: float = Field(100.0, gt=0, description="New connections a second from one address.")
    connect_burst: int = Field(2000, ge=1, description="New connections at once from one address.")
    denial_rate: float = Field(1.0, gt=0, description="Refused starts a second for one address or user.")
    denial_burst: int = Field(20, ge=1, description="Refused starts at once for one address or user.")
    frame_rate: float = Field(200.0, gt=0, description="Frames a second from one connection.")
    frame_burst: int = Field(1000, ge=1, description="Frames at once from one connection.")
    request_rate: float = Field(50.0, gt=0, description="Requests a second from one session.")
    request_burst: int = Field(200, ge=1, description="Requests at once from one session.")
    guess_rate: float = Field(1.0, gt=0, description="Unknown notification channels a second from one address.")
    guess_burst: int = Field(20, ge=1, description="Unknown notification channels at once from one address.")
    password_workers: int = Field(1, ge=1, description="Threads that hash passwords.")

    # protocol
    sockjs_websocket: bool = Field(True, description="Offer SockJS clients its WebSocket transport.")

    # observation
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    metrics: bool = Field(True, description="Serve /metrics.")
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A port for /metrics, /healthz and /readyz alone; each further worker has the next one.",
    )
    gc_freeze: bool = Field(True, description="Tune the garbage collector for many long-lived sessions.")

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls_dev and self.tls_cert is not None:
            raise ValueError("tls_dev and tls_cert exclude each other")
        return self

    @property
    def tls(self) -> bool:
        """Whether there is a TLS listener."""
        return self.tls_dev or self.tls_cert is not None

    @property
    def sqlite_path(self) -> Path:
        """Where the SQLite database is, unless ``database_url`` names another database."""
        return self.data_dir / "offhook.db"

    @property
    def files_path(self) -> Path:
        """The folder of uploaded files, unless they are kept in the database."""
        return self.data_dir / "files"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, which wins over the file named by OFFHOOK_CONFIG (default offhook.toml)."""
        config = Path(os.environ.get("OFFHOOK_CONFIG", DEFAULT_CONFIG))
        file = TomlConfigSettingsSource(settings_cls, config if config.is_file() else None)
        return init_settings, env_settings, file


class _Settled(Settings):
    """Settings whose sources were read already, by another process."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Neither the environment nor a file says anything more."""
        return (init_settings,)


def settled(text: str) -> Settings:
    """Settings from the JSON that ``Settings.model_dump_json`` made of them, whatever environment and file say now.

    Raises:
        ValueError: it is no such text.
    """
    return _Settled.model_validate_json(text)
