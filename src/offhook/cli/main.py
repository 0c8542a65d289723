"""The command ``offhook``."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer

from offhook.cli import apps, database, sessions, users
from offhook.cli.config import CONFIG
from offhook.cli.failures import ExitCode, Failure, unexpected
from offhook.cli.output import AsJson, print_fields, print_json, run

EPILOG = (
    "Exit codes: 0 done, 1 refused or failed, 2 wrong usage or settings, 3 not found, 4 cannot reach the server "
    "or its database."
)

app = typer.Typer(
    name="offhook",
    help="Offhook: a self-hosted real-time communications server.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(apps.app, name="app")
app.add_typer(users.app, name="user")
app.add_typer(sessions.app, name="session")
app.add_typer(database.app, name="db")


@app.callback()
def everywhere(
    config: Annotated[Path | None, typer.Option(help="Configuration file; offhook.toml unless given.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory; offhook-data unless given.")] = None,
) -> None:
    """Options of every command; they stand before its name."""
    if config is not None:
        os.environ[CONFIG] = str(config)
    if data_dir is not None:
        os.environ["OFFHOOK_DATA_DIR"] = str(data_dir)


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="Configuration file; offhook.toml unless given.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of plain HTTP and WebSocket; 0 picks a free one.")] = None,
    tls_port: Annotated[int | None, typer.Option(help="Port of HTTPS and secure WebSocket.")] = None,
    tls_dev: Annotated[
        bool | None, typer.Option("--tls-dev", help="Serve TLS too, by a local development authority.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the certificate chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's key.")] = None,
    functions: Annotated[str | None, typer.Option(help="Python module with authentication functions.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; more than one need PostgreSQL and Redis.")] = 1,
    demo: Annotated[
        bool, typer.Option("--demo", help="Make demo users: alice and bob, at the application's domain.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serves until SIGTERM or Ctrl-C, then says goodbye to every client.

    Every setting can also stand in offhook.toml or in the environment as OFFHOOK_NAME; flags win.

    Example: offhook serve --tls-dev --port 8686
    """
    from offhook.cli.serve import serve as run_server

    flags: dict[str, object] = {
        "host": host,
        "port": port,
        "tls_port": tls_port,
        "tls_dev": tls_dev,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "functions": functions,
    }
    try:
        run_server(flags, config, workers, demo, as_json)
    except Failure as failure:
        raise failure.tell(as_json) from None


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Checks settings, data, database, broker, server, TLS, TURN, clock and limits, and says what to do.

    Exits with 1 if anything fails.
    """
    from offhook.cli.doctor import examine

    raise typer.Exit(examine(as_json))


@app.command("turn-secret")
def turn_secret(as_json: AsJson = False) -> None:
    """Prints the secret that the TURN server must share: static-auth-secret in coturn's turnserver.conf.

    It is the setting turn_secret; unless that is set, it is made of the server's secret key.

    Example: offhook turn-secret
    """
    run(lambda admin: admin.get("/turn"), lambda answer: typer.echo(answer["secret"]), as_json)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sessions and rounds.")] = False,
    only: Annotated[
        Literal["chatkitty", "kandy", "sdk", "cluster"] | None, typer.Option(help="One section instead of all.")
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            envvar="OFFHOOK_BENCH_DATABASE_URL",
            help="PostgreSQL server for the section cluster, which makes a database there and drops it; "
            "postgresql://postgres@127.0.0.1:5432/postgres unless given.",
        ),
    ] = None,
    broker_url: Annotated[
        str | None,
        typer.Option(
            envvar="OFFHOOK_BENCH_BROKER_URL",
            help="Redis server for the section cluster; redis://127.0.0.1:6379/0 unless given.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measures this machine: session starts, fan-out, memory per session, and what several processes cost."""
    from offhook.bench.report import SECTIONS
    from offhook.bench.report import run as measure
    from offhook.bench.shared import BROKER_URL, DATABASE_URL, Servers

    servers = Servers(database_url or DATABASE_URL, broker_url or BROKER_URL)
    raise typer.Exit(measure(quick, as_json, servers, [only] if only else SECTIONS))


@app.command()
def quickstart(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="kandy-uc, kandy-link or chatkitty; all unless given."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The server; else http://127.0.0.1:8686, or one of its own if none is there.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="The application's API key, for ChatKitty.")] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="A user to play with. Repeatable: the last one plays ChatKitty's part.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the users' passwords, one a line.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Take them from standard input, one a line.")
    ] = False,
    ca: Annotated[Path | None, typer.Option(help="PEM file with the authority of the server's certificate.")] = None,
    own: Annotated[bool, typer.Option("--own", help="Start a server for it, whatever else is running.")] = False,
    as_json: AsJson = False,
) -> None:
    """Plays the quickstarts of Kandy UC, Kandy Link and ChatKitty with the SDK, and shows each event as it comes.

    Without --url it finds the server of make run and its demo users by itself. Nobody is left behind on a server: the
    one guest that is made is deleted again. Exits with 1 if a step does something else than its quickstart says.

    Example: offhook quickstart chatkitty --url https://localhost:8687 --ca offhook-data/tls/authority.pem
    """
    from offhook.cli.quickstart.command import Wanted
    from offhook.cli.quickstart.command import quickstart as play

    wanted = Wanted(names or (), url, api_key, user or (), password_file, password_stdin, ca, own, as_json)
    try:
        code = play(wanted)
    except Failure as failure:
        raise failure.tell(as_json) from None
    raise typer.Exit(int(code))


@app.command()
def chat(
    username: Annotated[str, typer.Argument(help="Who you are.")],
    protocol: Annotated[
        Literal["chatkitty", "link", "uc"], typer.Option(help="How to be there: as which kind of client.")
    ] = "link",
    to: Annotated[str | None, typer.Option(help="Whom to write to at first.")] = None,
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8686",
    api_key: Annotated[str | None, typer.Option(help="The application's API key, for ChatKitty.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Take the password from the first line of standard input.")
    ] = False,
    guest: Annotated[bool, typer.Option("--guest", help="Come without a password; ChatKitty only.")] = False,
    ca: Annotated[Path | None, typer.Option(help="PEM file with the authority of the server's certificate.")] = None,
) -> None:
    """Chats in the terminal: messages, and who comes and goes. Also through pipes, a line at a time.

    Example: offhook chat alice@example.com --to bob@example.com
    """
    from offhook.cli.chat.command import Wanted
    from offhook.cli.chat.command import chat as talk

    try:
        code = talk(Wanted(username, protocol, url, api_key, ca, password_stdin, guest, to))
    except Failure as failure:
        raise failure.tell(False) from None
    raise typer.Exit(int(code))


@app.command()
def version(as_json: AsJson = False) -> None:
    """Shows the version of Offhook and of what it runs on."""
    from offhook.cli.doctor import versions

    if as_json:
        print_json({name.lower(): value for name, value in versions()})
    else:
        print_fields(versions())


def main() -> None:
    """Runs the command line. Whatever goes wrong ends in one line, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's encoding has no sign for is no reason to stop.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except BrokenPipeError:
        # Who reads the output has seen enough; the interpreter must not complain about it while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(int(ExitCode.REFUSED))
    except Exception as error:
        if os.environ.get("OFFHOOK_LOG_LEVEL") == "debug":
            raise
        sys.exit(unexpected(error).tell("--json" in sys.argv).exit_code)
