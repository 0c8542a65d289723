"""Uploaded and drawn pictures over HTTP: grants, forms, content types, and names that want to be more than names."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import httpx
import pytest
from tests.served import Site, served

from offhook.domain.accounts import User
from offhook.services.applications import ApplicationChanges
from offhook.services.signing import GRANT_LIFETIME, Grant, Signer

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
MAX_UPLOAD = 4096


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path, max_upload=MAX_UPLOAD) as site:
        yield site


@pytest.fixture
async def jane(site: Site) -> User:
    return await site.core.users.create(await site.core.applications.get("default"), "jane")


def grant_of(site: Site, user: User, kind: str = "w", age: timedelta = timedelta()) -> str:
    now = site.core.clock.now() - age
    return Grant.issue(kind, user.application_id, user.id, now).encode(site.core.signer)


async def upload(
    site: Site, user: User, grant: str | None, data: bytes = PNG, *, part: str = "file", name: str = "me.png"
) -> httpx.Response:
    headers = {} if grant is None else {"Grant": grant}
    files = {part: (name, data, "image/png")}
    url = f"{site.url}/v1/streams/users/{user.id}/display-picture"
    return await site.http.post(url, headers=headers, files=files)


async def picture_of(site: Site, user: User) -> str | None:
    return (await site.core.users.by_name(await site.core.applications.get("default"), user.name)).picture


async def test_an_upload_becomes_the_users_picture(site: Site, jane: User) -> None:
    answer = await upload(site, jane, grant_of(site, jane))
    assert answer.status_code == 200
    url = answer.json()["displayPictureUrl"]
    assert re.fullmatch(rf"{re.escape(site.url)}/v1/files/[0-9a-f]{{64}}\.png", url)
    served_file = await site.http.get(url)
    assert served_file.content == PNG and served_file.headers["content-type"] == "image/png"
    assert served_file.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in served_file.headers["content-security-policy"]
    assert "immutable" in served_file.headers["cache-control"]
    assert served_file.headers["access-control-allow-origin"] == "*"


async def test_what_a_file_is_called_does_not_matter(site: Site, jane: User) -> None:
    urls = []
    for name in ("../../secret.key", "x.html", "a" * 300, "sch\u00f6n.svg", "x.php;.png"):
        answer = await upload(site, jane, grant_of(site, jane), name=name)
        urls.append(answer.json()["displayPictureUrl"].rpartition("/")[2])
        assert re.fullmatch(r"[0-9a-f]{64}\.png", urls[-1])
    stored = [path.name for path in (site.core.settings.data_dir / "files").rglob("*") if path.is_file()]
    assert len(set(urls)) == 5 and stored == [urls[-1]]


async def test_only_a_fresh_write_grant_of_ones_own_counts(site: Site, jane: User) -> None:
    john = await site.core.users.create(await site.core.applications.get("default"), "john")
    other, _ = await site.core.applications.create("other")
    stranger = await site.core.users.create(other, "jane")
    good = grant_of(site, jane)
    forged = Grant.issue("w", jane.application_id, jane.id, site.core.clock.now()).encode(Signer(b"x" * 32))
    token = site.core.signer.sign("session", f"w-{jane.application_id}-{jane.id}-99999999999")
    mixed = Grant.issue("w", other.id, jane.id, site.core.clock.now()).encode(site.core.signer)
    for grant in (
        None,
        "",
        "undefined",
        good[:-1],
        good + "x",
        forged,
        token,
        grant_of(site, jane, "r"),
        grant_of(site, john),
        grant_of(site, stranger),
        grant_of(site, jane, age=GRANT_LIFETIME),
        "x" * 5000,
    ):
        answer = await upload(site, jane, grant)
        assert answer.status_code == 403, grant
        assert answer.json()["error"] == "AccessDeniedError"
        assert answer.headers["access-control-allow-origin"] == "*"
    # A grant of another application does not reach this one's user, whatever the ids.
    assert (await upload(site, jane, mixed)).status_code == 404
    assert await picture_of(site, jane) is None
    assert [path for path in (site.core.settings.data_dir / "files").rglob("*") if path.is_file()] == []


async def test_a_grant_is_worth_nothing_once_its_application_or_user_is_gone(site: Site, jane: User) -> None:
    grant = grant_of(site, jane)
    await site.core.applications.change("default", ApplicationChanges(enabled=False))
    assert (await upload(site, jane, grant)).status_code == 403
    await site.core.applications.change("default", ApplicationChanges(enabled=True))
    application = await site.core.applications.get("default")
    await site.core.users.delete(application, jane.id)
    assert (await upload(site, jane, grant)).status_code == 404
    await site.core.applications.delete("default")
    assert (await upload(site, jane, grant)).status_code == 404


async def test_a_grant_of_a_disabled_user_is_worth_nothing(site: Site, jane: User) -> None:
    grant = grant_of(site, jane)
    await site.core.users.set_enabled(await site.core.applications.get("default"), "jane", False)
    assert (await upload(site, jane, grant)).status_code == 403


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 400),
        (b"<html><script>alert(1)</script>", 400),
        (PNG + b"x" * (MAX_UPLOAD - len(PNG)), 200),
        (PNG + b"x" * (MAX_UPLOAD - len(PNG) + 1), 413),
        (PNG + b"x" * 200_000, 413),
    ],
)
async def test_only_pictures_of_a_fair_size(site: Site, jane: User, data: bytes, status: int) -> None:
    answer = await upload(site, jane, grant_of(site, jane), data)
    assert answer.status_code == status
    assert (await picture_of(site, jane) is not None) is (status == 200)
    if status != 200:
        assert answer.json()["error"] == "ClientError"


async def test_forms_that_hold_no_file(site: Site, jane: User) -> None:
    url, headers = f"{site.url}/v1/streams/users/{jane.id}/display-picture", {"Grant": grant_of(site, jane)}
    for answer in (
        await upload(site, jane, grant_of(site, jane), part="picture"),
        await site.http.post(url, headers=headers, data={"file": "text"}),
        await site.http.post(url, headers=headers, content=PNG),
        await site.http.post(url, headers={**headers, "Content-Type": "multipart/form-data"}, content=b"x"),
        await site.http.post(url, headers={**headers, "Content-Type": "multipart/form-data; boundary=b"}, content=b"x"),
        await site.http.post(url, headers=headers, files=[("file", ("a", PNG)), ("file", ("b", PNG))]),
    ):
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"] == "ClientError"
    assert await picture_of(site, jane) is None


async def test_pages_may_upload(site: Site, jane: User) -> None:
    url = f"{site.url}/v1/streams/users/{jane.id}/display-picture"
    asked = {
        "Origin": "https://app.example.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "grant",
    }
    preflight = await site.http.options(url, headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "grant" in preflight.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in preflight.headers
    assert (await site.http.get(url)).status_code == 405


NAMES = [
    "Jane Doe",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE users; --",
    "a/b/c",
    "../../../etc/passwd",
    "日本語 名前",
    "\U0001f600 x",
    "a&b;c",
    "100%",
    "%3Cscript%3E",
    "\u202eabc",
    "?x=1#y",
    "x" * 3000,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_the_picture_of_any_name_is_a_harmless_picture(site: Site, name: str) -> None:
    answer = await site.http.get(f"{site.url}/v1/picture/{quote(name, safe='')}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    root = ElementTree.fromstring(answer.content)
    assert [element.tag.rpartition("}")[2] for element in root.iter()] == ["svg", "rect", "text"]
    assert b"script" not in answer.content and b"onerror" not in answer.content


async def test_files_that_are_not_there(site: Site, jane: User) -> None:
    answer = await upload(site, jane, grant_of(site, jane))
    stored = answer.json()["displayPictureUrl"].rpartition("/")[2]
    assert (await site.http.get(f"{site.url}/v1/files/{stored}")).status_code == 200
    for name in ("0" * 64 + ".png", "x.png", "", "0" * 64, stored.replace(".png", ".svg"), stored.upper()):
        answer = await site.http.get(f"{site.url}/v1/files/{name}")
        assert answer.status_code == 404
        assert "<" not in answer.text


async def test_under_a_path_and_another_name(tmp_path: Path) -> None:
    async with served(tmp_path, base_path="/chat", public_url="https://chat.example.test/chat") as site:
        user = await site.core.users.create(await site.core.applications.get("default"), "jane")
        answer = await upload(site, user, grant_of(site, user))
        url = answer.json()["displayPictureUrl"]
        assert url.startswith("https://chat.example.test/chat/v1/files/")
        assert (await site.http.get(f"{site.url}/v1/files/{url.rpartition('/')[2]}")).content == PNG
        assert answer.json()["_streams"]["displayPicture"].startswith("https://chat.example.test/chat/v1/streams/")
        root = site.url.removesuffix("/chat")
        assert (await site.http.get(f"{root}/v1/files/{url.rpartition('/')[2]}")).status_code == 404
