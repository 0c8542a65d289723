"""``offhook session``: who is connected, who was, and why they no longer are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from offhook.cli.failures import ExitCode, Failure
from offhook.cli.output import (
    DEFAULT_APPLICATION,
    AsJson,
    Page,
    Size,
    Yes,
    cell,
    confirm,
    moment,
    objects,
    print_fields,
    print_page,
    print_table,
    run,
)

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject

app = typer.Typer(no_args_is_help=True, help="Sessions: live ones, and the ledger of past ones.")

User: TypeAlias = Annotated[str | None, typer.Option(help="Of the user of this name.")]
App: TypeAlias = Annotated[str | None, typer.Option("--app", help="Of this application.")]
COLUMNS = (
    "ID", "USER", "APP", "STATE", "PRODUCT", "CLIENT", "ADDRESS", "STARTED (UTC)", "SERVICES", "EXPIRES (UTC)",
    "RESUMES", "ENDED BY",
)  # fmt: skip


@app.command("list")
def list_(
    user: User = None,
    application: App = None,
    state: Annotated[str, typer.Option(help="live, ended or all.")] = "all",
    page: Page = 0,
    size: Size = 25,
    as_json: AsJson = False,
) -> None:
    """Lists sessions, newest first.

    Example: offhook session list --user jane@example.com --state live
    """
    params: dict[str, str | int | None] = {
        "user": user,
        "application": application,
        "state": state,
        "page": page,
        "size": size,
    }

    def show(answer: JsonObject) -> None:
        rows = [
            (
                s["id"],
                s["user"],
                s["application"],
                s["state"],
                _kind(s),
                s["client"],
                s["address"],
                moment(s["started_at"]),
                _services(s),
                moment(s["expires_at"]) if s["state"] != "ended" else "-",
                s["resumes"],
                s["end_reason"],
            )
            for s in objects(answer["sessions"])
        ]
        print_table(COLUMNS, rows, "No sessions.")
        print_page(answer, "sessions")

    run(lambda admin: admin.get("/sessions", params), show, as_json)


@app.command()
def show(
    session_id: Annotated[int, typer.Argument(metavar="ID", help="The session's id.")],
    as_json: AsJson = False,
) -> None:
    """Shows a session with its whole story, and answers "why was I disconnected?".

    Example: offhook session show 42
    """
    run(lambda admin: admin.get(f"/sessions/{session_id}"), _show, as_json)


@app.command()
def end(
    session_id: Annotated[int | None, typer.Argument(metavar="[ID]", help="The session's id.")] = None,
    user: User = None,
    application: App = None,
    text: Annotated[str | None, typer.Option(help="Words for the client and the session's story.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Ends a session, all of a user, or all of an application. Clients do not come back by themselves.

    Example: offhook session end --user jane@example.com --text "Maintenance"
    """
    body: JsonObject = {} if text is None else {"text": text}
    if session_id is not None:
        if user is not None or application is not None:
            failure = Failure("usage", "Give either an ID or --user and --app", ExitCode.USAGE)
            raise failure.tell(as_json)
        run(lambda admin: admin.send("POST", f"/sessions/{session_id}/end", body), _show, as_json)
        return
    if user is None and application is None:
        raise Failure("usage", "Give an ID, --user or --app", ExitCode.USAGE).tell(as_json)
    body["application"] = application or DEFAULT_APPLICATION
    if user is None:
        confirm(f"End every session of the application {application}?", yes)
    else:
        body["user"] = user

    def show(answer: JsonObject) -> None:
        typer.echo(f"{cell(answer['ended'])} sessions ended.")

    run(lambda admin: admin.send("POST", "/sessions/end", body), show, as_json)


def _kind(session: JsonObject) -> str:
    """The family of clients that a session's client is of."""
    subscription = session["subscription"]
    product = f" {subscription['product']}" if isinstance(subscription, dict) else ""
    return f"{session['protocol']}{product}"


def _services(session: JsonObject) -> str:
    subscription = session["subscription"]
    services = subscription["services"] if isinstance(subscription, dict) else None
    return ", ".join(str(name) for name in services) if isinstance(services, list) else "-"


def _show(answer: JsonObject) -> None:
    fields = {name: value for name, value in answer.items() if name not in ("story", "explanation", "subscription")}
    subscription = answer["subscription"]
    if isinstance(subscription, dict):
        fields |= {**subscription, "services": _services(answer)}
    print_fields(
        (name.replace("_", " "), moment(value) + " UTC" if name.endswith("_at") and value else value)
        for name, value in fields.items()
    )
    rows = [
        (moment(line["at"]), line["kind"], line["text"], "" if line["kind"] == "started" else line["detail"])
        for line in objects(answer["story"])
    ]
    print_table(("AT (UTC)", "WHAT", "WHY", "DETAIL"), rows, "Nothing happened yet.")
    typer.echo(cell(answer["explanation"]))
