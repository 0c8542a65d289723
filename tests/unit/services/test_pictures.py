"""Pictures: told by their content alone, and drawn of any name without its name getting in."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.services.support import start

from offhook.core import Core
from offhook.domain.accounts import Application
from offhook.domain.events import UserUpdated
from offhook.errors import AccessDenied, InvalidInput, NotFound, RateLimited, TooLarge
from offhook.services.pictures import CONTENT_TYPES, UPLOADS, PictureService, generated, picture_kind
from offhook.storage.blobs import DiskBlobs

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
KINDS = [
    (PNG, "png"),
    (b"\xff\xd8\xff\xe0 jpeg", "jpg"),
    (b"GIF87a...", "gif"),
    (b"GIF89a...", "gif"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("data", "kind"), KINDS)
async def test_pictures_are_known_by_their_first_bytes(
    core: Core, application: Application, data: bytes, kind: str
) -> None:
    assert picture_kind(data) == kind
    user = await core.users.create(application, "jane")
    changed = await core.pictures.upload(application, user.id, data)
    # Nobody can tell the name from the content, so nobody finds out who else has the same picture.
    assert changed.picture is not None and re.fullmatch(rf"/v1/files/[0-9a-f]{{64}}\.{kind}", changed.picture)
    assert hashlib.sha256(data).hexdigest() not in changed.picture
    assert await core.pictures.stored(changed.picture.rpartition("/")[2]) == (data, CONTENT_TYPES[kind])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!DOCTYPE html><script>alert(1)</script>",
        b"\x89PNG",
        b" \x89PNG\r\n\x1a\n",
        b"RIFF\x10\0\0\0WAVE",
        b"%PDF-1.7",
        b"BM....",
    ],
)
async def test_what_is_no_picture_is_refused(core: Core, application: Application, data: bytes) -> None:
    stay = await start(core, "jane")
    with pytest.raises(InvalidInput):
        await core.pictures.upload(application, stay.live.user_id, data)
    assert stay.outlet.events == []
    assert not (core.settings.data_dir / "files").exists()


async def test_the_limit_is_exact(core: Core, application: Application, tmp_path: Path) -> None:
    user = await core.users.create(application, "jane")
    pictures = PictureService(DiskBlobs(tmp_path / "small"), core.users, len(PNG))
    await pictures.upload(application, user.id, PNG)
    with pytest.raises(TooLarge):
        await pictures.upload(application, user.id, PNG + b"x")


async def test_a_user_uploads_only_so_many(core: Core, application: Application) -> None:
    jane, john = [await core.users.create(application, name) for name in ("jane", "john")]
    for _ in range(UPLOADS.burst):
        await core.pictures.upload(application, jane.id, PNG)
    with pytest.raises(RateLimited):
        await core.pictures.upload(application, jane.id, PNG)
    await core.pictures.upload(application, john.id, PNG)
    with pytest.raises(NotFound):
        await core.pictures.upload(application, 999, PNG)
    await core.users.set_enabled(application, "john", False)
    with pytest.raises(AccessDenied):
        await core.pictures.upload(application, john.id, PNG)
    stored = [path for path in (core.settings.data_dir / "files").rglob("*") if path.is_file()]
    # One for each of them: a picture that was replaced is not kept.
    assert len(stored) == 2


async def test_a_deleted_users_picture_is_deleted(core: Core, application: Application) -> None:
    user = await core.users.create(application, "jane")
    picture = (await core.pictures.upload(application, user.id, PNG)).picture
    assert picture is not None and await core.pictures.stored(picture.rpartition("/")[2]) is not None
    await core.users.delete(application, user.id)
    assert await core.pictures.stored(picture.rpartition("/")[2]) is None


async def test_everybody_hears_of_a_new_picture(core: Core, application: Application) -> None:
    jane, witness = await start(core, "jane"), await start(core, "john")
    jane.outlet.heard.clear()
    changed = await core.pictures.upload(application, jane.live.user_id, PNG)
    for stay in (jane, witness):
        assert {event.user.picture for event in stay.outlet.events} == {changed.picture}
        assert {type(event) for event in stay.outlet.events} == {UserUpdated}


def drawn(name: str) -> ElementTree.Element:
    """The picture of a name as a parser reads it: a rectangle and a text, and nothing else."""
    root = ElementTree.fromstring(generated(name))
    assert [element.tag for element in root.iter()] == [f"{SVG}svg", f"{SVG}rect", f"{SVG}text"]
    assert set(root[0].attrib) == {"width", "height", "fill"}
    assert not any(name.startswith("on") or "href" in name for element in root.iter() for name in element.attrib)
    return root[1]


@given(st.text())
def test_any_name_gives_a_well_formed_picture(name: str) -> None:
    text = drawn(name).text
    assert text and len(text) <= 8
    assert generated(name) == generated(name)


@pytest.mark.parametrize(
    ("name", "initials"),
    [
        ("Jane Doe", "JD"),
        ("jane", "J"),
        ("Jane van der Doe", "JD"),
        ("jane.doe@example.com", "JC"),
        ("", "?"),
        ("<script>alert(1)</script>", "?"),
        ("\"'&<>", "?"),
        ("1 & 2", "12"),
        ("日本 語", "日語"),
        ("ßeta", "SS"),
        ("../../etc/passwd", "/"),
    ],
)
def test_initials(name: str, initials: str) -> None:
    text = drawn(name).text
    assert text == initials or (initials == "/" and text in ("?", "/"))


def test_names_have_colours_of_their_own() -> None:
    colours = {generated(f"user-{number}").partition('fill="')[2][:7] for number in range(50)}
    assert len(colours) > 20
