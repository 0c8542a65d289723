"""Certificates: the development authority, loading, replacing."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from offhook.errors import InvalidInput
from offhook.server import tls
from offhook.server.tls import Certificates, certificate_info, development_certificate


async def shake_hands(
    certificates: Certificates, trusted: Path, name: str, version: ssl.TLSVersion | None = None
) -> bytes:
    """A TLS handshake over loopback. Returns the server's certificate as the client sees it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    client = ssl.create_default_context(cafile=str(trusted))
    if version is not None:
        client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        client.maximum_version = version
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificates.context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        seen: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
    return seen


def fingerprint(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(tls._certificate_pem(path.read_bytes()).decode())


async def test_clients_that_trust_the_authority_connect_by_every_name(tmp_path: Path) -> None:
    made = development_certificate(tmp_path / "tls", ["chat.example", "192.0.2.7", "0.0.0.0"])
    certificates = Certificates(made.certificate)
    for name in ("localhost", "127.0.0.1", "::1", "chat.example", "192.0.2.7", socket.gethostname()):
        assert await shake_hands(certificates, made.authority, name) == fingerprint(made.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands(certificates, made.authority, "other.example")
    assert "0.0.0.0" not in certificate_info(made.certificate).names


async def test_old_tls_is_refused(tmp_path: Path) -> None:
    made = development_certificate(tmp_path)
    certificates = Certificates(made.certificate)
    await shake_hands(certificates, made.authority, "localhost", ssl.TLSVersion.TLSv1_2)
    assert certificates.context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_keys_are_private_and_all_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "tls"
    made = development_certificate(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {"authority.key", "authority.pem", "server.pem"}
    for name in ("authority.key", "server.pem"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert b"PRIVATE KEY" not in made.authority.read_bytes()
    assert b"EC PRIVATE KEY" in made.certificate.read_bytes()
    assert development_certificate(folder) == made
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_certificate_is_renewed_when_it_has_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = development_certificate(tmp_path)
    authority, first = made.authority.read_bytes(), made.certificate.read_bytes()
    info = certificate_info(made.certificate)
    now = datetime.now(UTC)
    assert info.not_before < now and timedelta(days=390) < info.expires_in(now) < timedelta(days=398)

    development_certificate(tmp_path, ["new.example"])
    named = made.certificate.read_bytes()
    assert named != first and "new.example" in certificate_info(made.certificate).names

    monkeypatch.setattr(tls, "RENEW_BEFORE", timedelta(days=500))
    development_certificate(tmp_path, ["new.example"])
    assert made.certificate.read_bytes() != named
    monkeypatch.undo()

    made.certificate.write_text("damaged")
    development_certificate(tmp_path)
    certificate_info(made.certificate)
    assert made.authority.read_bytes() == authority


async def test_a_new_authority_brings_a_new_certificate(tmp_path: Path) -> None:
    made = development_certificate(tmp_path)
    (tmp_path / "authority.key").unlink()
    development_certificate(tmp_path)
    await shake_hands(Certificates(made.certificate), made.authority, "localhost")


def test_damaged_and_unwritable_folders(tmp_path: Path) -> None:
    development_certificate(tmp_path)
    (tmp_path / "authority.key").write_text("damaged")
    with pytest.raises(InvalidInput, match="damaged"):
        development_certificate(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="Cannot keep"):
        development_certificate(tmp_path / "file")


def issue(folder: Path, name: str, ca: trustme.CA) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    leaf = ca.issue_cert(name)
    certificate, key = folder / "chain.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    return certificate, key


async def test_replaced_files_are_served_to_new_connections_only(tmp_path: Path) -> None:
    ca = trustme.CA()
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(ca.cert_pem.bytes())
    certificate, key = issue(tmp_path, "localhost", ca)
    certificates = Certificates(certificate, key)
    first = await shake_hands(certificates, trusted, "localhost")
    assert not certificates.reload_if_changed()

    issue(tmp_path, "localhost", ca)
    assert certificates.reload_if_changed()
    second = await shake_hands(certificates, trusted, "localhost")
    assert second == fingerprint(certificate) != first

    key.write_text("damaged")
    with capture_logs() as logs:
        assert not certificates.reload_if_changed()
        assert not certificates.reload_if_changed()
    assert [entry["event"] for entry in logs] == ["certificate not loaded, the old one stays"]
    with pytest.raises(InvalidInput):
        certificates.reload()
    assert await shake_hands(certificates, trusted, "localhost") == second


def test_unusable_files_are_told(tmp_path: Path) -> None:
    ca = trustme.CA()
    certificate, key = issue(tmp_path / "a", "localhost", ca)
    _, other = issue(tmp_path / "b", "localhost", ca)
    with pytest.raises(InvalidInput, match="do not belong together"):
        Certificates(certificate, other)
    with pytest.raises(InvalidInput, match="Cannot read"):
        Certificates(tmp_path / "none.pem", key)
    with pytest.raises(InvalidInput, match="cannot be used"):
        Certificates(certificate)
    with pytest.raises(InvalidInput, match="no PEM certificate"):
        Certificates(key, key)
    with pytest.raises(InvalidInput, match="Cannot read"):
        certificate_info(tmp_path / "none.pem")
    with pytest.raises(InvalidInput, match="no PEM certificate"):
        certificate_info(key)


def test_certificate_info(tmp_path: Path) -> None:
    certificate, _ = issue(tmp_path, "chat.example", trustme.CA(organization_unit_name="Unit"))
    info = certificate_info(certificate)
    assert info.names == ("chat.example",)
    assert "Unit" in info.issuer


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InvalidInput, match="no space"):
        development_certificate(tmp_path)
    assert list(tmp_path.iterdir()) == []
