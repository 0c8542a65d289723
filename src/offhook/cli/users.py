"""``offhook user``: users of an application."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from offhook.cli.failures import ExitCode, Failure
from offhook.cli.output import (
    DEFAULT_APPLICATION,
    AsJson,
    Page,
    Size,
    Yes,
    confirm,
    moment,
    objects,
    print_fields,
    print_page,
    print_table,
    read_password,
    run,
)

if TYPE_CHECKING:
    from offhook.domain.values import JsonObject

app = typer.Typer(no_args_is_help=True, help="Users of an application.")

Name: TypeAlias = Annotated[str, typer.Argument(help="The username.")]
App: TypeAlias = Annotated[str, typer.Option("--app", help="The application.")]
PasswordStdin: TypeAlias = Annotated[
    bool, typer.Option("--password-stdin", help="Take the password from the first line of standard input.")
]


@app.command()
def create(
    name: Name,
    application: App = DEFAULT_APPLICATION,
    password_stdin: PasswordStdin = False,
    ask_password: Annotated[bool, typer.Option("--ask-password", help="Ask for a password.")] = False,
    display_name: Annotated[str | None, typer.Option(help="Name shown to people.")] = None,
    properties: Annotated[str | None, typer.Option(help="The application's own data: a JSON object.")] = None,
    as_json: AsJson = False,
) -> None:
    """Makes a user.

    Example: offhook user create jane@example.com --display-name Jane --ask-password
    """
    try:
        body: JsonObject = {"name": name}
        if display_name is not None:
            body["display_name"] = display_name
        if properties is not None:
            body["properties"] = _properties(properties)
        if password_stdin or ask_password:
            body["password"] = read_password(None if password_stdin else "Password")
    except Failure as failure:
        raise failure.tell(as_json) from None
    run(lambda admin: admin.send("POST", _path(application), body), _show, as_json)


@app.command("list")
def list_(
    application: App = DEFAULT_APPLICATION,
    name: Annotated[str | None, typer.Option(help="Only this username.")] = None,
    display_name: Annotated[str | None, typer.Option(help="Only display names that contain this text.")] = None,
    online: Annotated[bool | None, typer.Option("--online/--offline", help="Only users who are (not) online.")] = None,
    page: Page = 0,
    size: Size = 25,
    as_json: AsJson = False,
) -> None:
    """Lists users by display name.

    Example: offhook user list --app shop --online
    """
    params: dict[str, str | int | None] = {
        "name": name,
        "display_name": display_name,
        "online": None if online is None else str(online).lower(),
        "page": page,
        "size": size,
    }

    def show(answer: JsonObject) -> None:
        rows = [
            (
                u["id"],
                u["name"],
                u["display_name"],
                u["guest"],
                u["online"],
                u["enabled"],
                moment(u["created_at"]),
            )
            for u in objects(answer["users"])
        ]
        print_table(("ID", "NAME", "DISPLAY NAME", "GUEST", "ONLINE", "ENABLED", "CREATED (UTC)"), rows, "No users.")
        print_page(answer, "users")

    run(lambda admin: admin.get(_path(application), params), show, as_json)


@app.command()
def show(name: Name, application: App = DEFAULT_APPLICATION, as_json: AsJson = False) -> None:
    """Shows a user."""
    run(lambda admin: admin.get(_path(application, name)), _show, as_json)


@app.command("set-password")
def set_password(
    name: Name,
    application: App = DEFAULT_APPLICATION,
    password_stdin: PasswordStdin = False,
    remove: Annotated[bool, typer.Option("--remove", help="Leave the user without a password.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sets a user's password and ends the user's sessions. Asks for the password unless told where it is.

    Example: offhook user set-password jane@example.com --password-stdin < password.txt
    """
    try:
        if remove and password_stdin:
            raise Failure("usage", "--remove and --password-stdin exclude each other", ExitCode.USAGE)
        password = None if remove else read_password(None if password_stdin else "New password")
    except Failure as failure:
        raise failure.tell(as_json) from None
    body: JsonObject = {"password": password}
    run(lambda admin: admin.send("PUT", f"{_path(application, name)}/password", body), _show, as_json)


@app.command()
def enable(name: Name, application: App = DEFAULT_APPLICATION, as_json: AsJson = False) -> None:
    """Lets a user start sessions again."""
    run(lambda admin: admin.send("PATCH", _path(application, name), {"enabled": True}), _show, as_json)


@app.command()
def disable(name: Name, application: App = DEFAULT_APPLICATION, as_json: AsJson = False) -> None:
    """Ends a user's sessions and lets the user start no more."""
    run(lambda admin: admin.send("PATCH", _path(application, name), {"enabled": False}), _show, as_json)


@app.command()
def delete(name: Name, application: App = DEFAULT_APPLICATION, yes: Yes = False, as_json: AsJson = False) -> None:
    """Ends a user's sessions and deletes the user."""
    confirm(f"Delete the user {name}?", yes)

    def show(answer: JsonObject) -> None:
        typer.echo(f"The user {name} is deleted.")

    run(lambda admin: admin.send("DELETE", _path(application, name)), show, as_json)


def _path(application: str, name: str | None = None) -> str:
    from offhook.cli.client import segment

    users = f"/applications/{segment(application)}/users"
    return users if name is None else f"{users}/{segment(name)}"


def _properties(text: str) -> JsonObject:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Failure("usage", "--properties must be a JSON object", ExitCode.USAGE)
    return value


def _show(answer: JsonObject) -> None:
    print_fields((name.replace("_", " "), value) for name, value in answer.items())
