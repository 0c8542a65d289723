"""``offhook app``: applications."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from offhook.cli.failures import ExitCode, Failure
from offhook.cli.output import AsJson, Yes, confirm, moment, objects, print_fields, print_table, run

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject, JsonValue

app = typer.Typer(no_args_is_help=True, help="Applications: the tenants of a server.")

Name: TypeAlias = Annotated[str, typer.Argument(help="The application's name.")]
Guests: TypeAlias = Annotated[
    bool | None,
    typer.Option("--guests/--no-guests", help="Whether unknown users may start sessions as guests."),
]
MaxSessions: TypeAlias = Annotated[int | None, typer.Option(help="Sessions one user may have at once.")]
Duplicates: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What happens beyond that: end-oldest, end-newest or reject-new."),
]
LeaveGrace: TypeAlias = Annotated[
    float | None, typer.Option(help="Seconds a user stays online after the last connection broke.")
]
ResumeWindow: TypeAlias = Annotated[
    float | None, typer.Option(help="Seconds for which a broken session can be resumed.")
]
SocketWait: TypeAlias = Annotated[
    float | None, typer.Option(help="Seconds a new Kandy subscription waits for its notification socket.")
]
SocketGrace: TypeAlias = Annotated[
    float | None, typer.Option(help="Seconds a user of Kandy stays online after the notification socket broke.")
]


@app.command()
def create(
    name: Name,
    domain: Annotated[str | None, typer.Option(help="Its domain; NAME.local unless given.")] = None,
    api_key: Annotated[str | None, typer.Option(help="An API key of your own choice; else a random one.")] = None,
    guests: Guests = None,
    max_sessions: MaxSessions = None,
    duplicates: Duplicates = None,
    leave_grace: LeaveGrace = None,
    resume_window: ResumeWindow = None,
    socket_wait: SocketWait = None,
    socket_grace: SocketGrace = None,
    as_json: AsJson = False,
) -> None:
    """Makes an application and shows its secrets, this once.

    Example: offhook app create shop --no-guests --max-sessions 3 --duplicates end-oldest
    """
    body = _given(name=name, domain=domain, api_key=api_key, guests=guests)
    body |= _sessions(
        max_sessions=max_sessions,
        duplicates=duplicates,
        leave_grace=leave_grace,
        resume_window=resume_window,
        socket_wait=socket_wait,
        socket_grace=socket_grace,
    )
    run(lambda admin: admin.send("POST", "/applications", body), _show_with_secrets, as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Lists the applications."""

    def show(answer: JsonObject) -> None:
        rows = [
            (a["name"], a["domain"], a["api_key"], a["guests"], a["enabled"], moment(a["created_at"]))
            for a in objects(answer["applications"])
        ]
        print_table(("NAME", "DOMAIN", "API KEY", "GUESTS", "ENABLED", "CREATED (UTC)"), rows, "No applications.")

    run(lambda admin: admin.get("/applications"), show, as_json)


@app.command()
def show(
    name: Name,
    secrets: Annotated[bool, typer.Option("--secrets", help="Show the webhook secret and the HMAC key too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows an application.

    Example: offhook app show default --secrets
    """
    params = {"secrets": "true"} if secrets else None
    run(lambda admin: admin.get(_path(name), params), _show, as_json)


@app.command()
def update(
    name: Name,
    guests: Guests = None,
    enabled: Annotated[
        bool | None,
        typer.Option("--enable/--disable", help="Whether it accepts sessions; --disable ends them."),
    ] = None,
    max_sessions: MaxSessions = None,
    duplicates: Duplicates = None,
    leave_grace: LeaveGrace = None,
    resume_window: ResumeWindow = None,
    socket_wait: SocketWait = None,
    socket_grace: SocketGrace = None,
    token_algorithm: Annotated[
        list[str] | None, typer.Option(help="Accepted JWT algorithm: HS256, RS256 or ES256. Repeatable.")
    ] = None,
    token_secret_file: Annotated[
        Path | None, typer.Option(help="File with the shared secret for HS256; - for standard input.")
    ] = None,
    token_public_key_file: Annotated[
        Path | None, typer.Option(help="PEM file with the public key for RS256 or ES256.")
    ] = None,
    token_jwks: Annotated[str | None, typer.Option(help="JWK Set: a URL, or a file on the server.")] = None,
    token_issuer: Annotated[str | None, typer.Option(help="Required iss; empty for any.")] = None,
    token_audience: Annotated[str | None, typer.Option(help="Required aud; empty for any.")] = None,
    token_claim: Annotated[str | None, typer.Option(help="Claim that must equal the username.")] = None,
    no_tokens: Annotated[bool, typer.Option("--no-tokens", help="Accept no tokens any more.")] = False,
    webhook: Annotated[str | None, typer.Option(help="URL of the authentication webhook.")] = None,
    webhook_timeout: Annotated[float | None, typer.Option(help="Seconds until an attempt is denied.")] = None,
    no_webhook: Annotated[bool, typer.Option("--no-webhook", help="Ask no webhook any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Changes an application; what is not given stays as it is.

    Example: offhook app update shop --token-algorithm RS256 --token-jwks https://id.example.com/jwks.json
    """
    body = _given(guests=guests, enabled=enabled)
    body |= _sessions(
        max_sessions=max_sessions,
        duplicates=duplicates,
        leave_grace=leave_grace,
        resume_window=resume_window,
        socket_wait=socket_wait,
        socket_grace=socket_grace,
    )
    algorithms: list[JsonValue] | None = list(token_algorithm) if token_algorithm else None
    try:
        tokens = _given(
            algorithms=algorithms,
            secret=_content(token_secret_file),
            public_key=_content(token_public_key_file),
            jwks=token_jwks,
            username_claim=token_claim,
        )
        for member, text in (("issuer", token_issuer), ("audience", token_audience)):
            if text is not None:
                tokens[member] = text or None
        body |= _replaced("tokens", tokens, no_tokens)
        body |= _replaced("webhook", _given(url=webhook, timeout=webhook_timeout), no_webhook)
        if not body:
            raise Failure("usage", "There is nothing to change; see offhook app update --help", ExitCode.USAGE)
    except Failure as failure:
        raise failure.tell(as_json) from None
    run(lambda admin: admin.send("PATCH", _path(name), body), _show, as_json)


@app.command("rotate-key")
def rotate_key(name: Name, as_json: AsJson = False) -> None:
    """Gives an application a new API key and client secret; the old ones stop working, sessions go on."""
    run(lambda admin: admin.send("POST", f"{_path(name)}/rotate-key"), _show_with_secrets, as_json)


@app.command()
def delete(name: Name, yes: Yes = False, as_json: AsJson = False) -> None:
    """Ends an application's sessions and deletes it with all its users."""
    confirm(f"Delete the application {name} with all its users?", yes)

    def show(answer: JsonObject) -> None:
        typer.echo(f"The application {name} is deleted.")

    run(lambda admin: admin.send("DELETE", _path(name)), show, as_json)


def _path(name: str) -> str:
    from offhook.cli.client import segment

    return f"/applications/{segment(name)}"


def _given(**values: JsonValue) -> JsonObject:
    return {name: value for name, value in values.items() if value is not None}


def _sessions(**values: JsonValue) -> JsonObject:
    policy = _given(**values)
    return {"sessions": policy} if policy else {}


def _replaced(name: str, members: JsonObject, removed: bool) -> JsonObject:
    """The part of a merge patch for one policy."""
    if removed and members:
        raise Failure("usage", f"--no-{name} excludes the other --{name.rstrip('s')}-… options", ExitCode.USAGE)
    if removed:
        return {name: None}
    return {name: members} if members else {}


def _content(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return content.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure("usage", f"Cannot read {path}: {error}", ExitCode.USAGE) from error


def _show(answer: JsonObject) -> None:
    print_fields((name.replace("_", " "), value) for name, value in answer.items())


def _show_with_secrets(answer: JsonObject) -> None:
    _show(answer)
    typer.echo("\nKeep the client secret: it is not shown again.")
