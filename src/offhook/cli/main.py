"""The command ``offhook``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from offhook.cli import apps, sessions, users
from offhook.cli.config import CONFIG
from offhook.cli.failures import ExitCode, Failure
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
    workers: Annotated[int, typer.Option(help="Processes; this version serves from one.")] = 1,
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
    """Checks settings, data, database, server, TLS, TURN, clock and limits, and says what to do.

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
    as_json: AsJson = False,
) -> None:
    """Measures this machine: session starts, fan-out, memory per session."""
    from offhook.bench.report import run as measure

    raise typer.Exit(measure(quick=quick, json=as_json))


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
    try:
        app()
    except BrokenPipeError:
        # Who reads the output has seen enough; the interpreter must not complain about it while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(int(ExitCode.REFUSED))
    except Exception as error:
        if os.environ.get("OFFHOOK_LOG_LEVEL") == "debug":
            raise
        failure = Failure("internal", f"Something went wrong: {type(error).__name__}: {error}")
        sys.exit(failure.tell("--json" in sys.argv).exit_code)
