"""TLS: certificates from files, or from a local authority for development.

The development authority lives in a folder of its own. Its key never leaves it and is readable by its owner
alone; clients are told to trust its certificate, which stays the same from start to start.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
import trustme
from cryptography import x509
from structlog.typing import FilteringBoundLogger

from offhook.errors import InvalidInput

logger: FilteringBoundLogger = structlog.get_logger(__name__)

LEAF_LIFETIME = timedelta(days=397)
"""The longest that browsers accept."""
RENEW_BEFORE = timedelta(days=30)

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate file says.

    Attributes:
        names: DNS names and IP addresses it is for.
        issuer: who signed it.
        not_before: UTC; before this it is not valid.
        not_after: UTC; after this it is not valid.
    """

    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime

    def expires_in(self, now: datetime) -> timedelta:
        """How long it is valid yet; negative when it has expired."""
        return self.not_after - now


@dataclass(frozen=True, slots=True)
class DevelopmentCertificate:
    """Files of the development authority.

    Attributes:
        authority: PEM file with the authority's certificate, for clients to trust.
        certificate: PEM file with the server's key and certificate chain.
    """

    authority: Path
    certificate: Path


class Certificates:
    """The TLS context of a listener, whose certificate can be replaced while connections live on.

    Args:
        certificate: PEM file with the certificate chain.
        key: PEM file with its key; None if the key is in the same file.

    Raises:
        InvalidInput: a file cannot be read, holds no certificate or key, or the two do not belong together.
    """

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self.context = _context(certificate, key)
        self._stamp = self._stamps()

    def reload(self) -> None:
        """Reads the files again; new connections get the new certificate, present ones are left alone.

        Raises:
            InvalidInput: as at first; then the old certificate stays in use.
        """
        _context(self._certificate, self._key)  # a context that fails half-way would serve nobody
        self.context.load_cert_chain(self._certificate, self._key)
        self._stamp = self._stamps()
        logger.info("certificate loaded", file=str(self._certificate))

    def reload_if_changed(self) -> bool:
        """Reloads if a file was replaced since it was read; what is wrong with it is logged, once.

        Returns:
            Whether there is a new certificate.
        """
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        try:
            self.reload()
        except InvalidInput as error:
            self._stamp = stamp
            logger.error("certificate not loaded, the old one stays", reason=error.message)
            return False
        return True

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._certificate, self._key) if path is not None)


def certificate_info(path: Path) -> CertificateInfo:
    """Reads the first certificate of a PEM file.

    Raises:
        InvalidInput: the file cannot be read or holds no certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(_certificate_pem(path.read_bytes()))
    except OSError as error:
        raise InvalidInput(f"Cannot read the certificate {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} holds no PEM certificate") from error
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names: tuple[str, ...] = ()
    else:
        addresses = alternatives.get_values_for_type(x509.IPAddress)
        names = (*alternatives.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))
    return CertificateInfo(
        names,
        certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def development_certificate(folder: Path, hosts: Iterable[str] = ()) -> DevelopmentCertificate:
    """Makes, or finds again, a local authority and a certificate by it for this machine.

    The certificate is for localhost, the loopback addresses, the machine's name and ``hosts``. It is made
    anew when it lacks one of these or soon runs out, and when the authority is new.

    Args:
        folder: where the files are kept; made if it is missing.
        hosts: further host names and IP addresses; addresses that mean "every address" are left out.

    Raises:
        InvalidInput: a file cannot be read or written.
    """
    authority_key, authority = folder / "authority.key", folder / "authority.pem"
    certificate = folder / "server.pem"
    now = datetime.now(UTC)
    names = _names(hosts)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = not authority_key.exists()
        if made:
            new = trustme.CA(
                organization_name="Offhook",
                organization_unit_name=f"Offhook development, {socket.gethostname()}",
            )
            _write(authority_key, new.private_key_pem.bytes() + new.cert_pem.bytes())
        pem = authority_key.read_bytes()
        ca = trustme.CA.from_pem(_certificate_pem(pem), pem)
        if not authority.exists() or authority.read_bytes() != ca.cert_pem.bytes():
            _write(authority, ca.cert_pem.bytes(), mode=0o644)
        if made or not _serves(certificate, authority, names, now):
            leaf = ca.issue_cert(
                *names,
                organization_name="Offhook",
                not_before=now - timedelta(days=1),
                not_after=now + LEAF_LIFETIME - timedelta(days=1),
            )
            _write(certificate, leaf.private_key_and_cert_chain_pem.bytes())
    except OSError as error:
        raise InvalidInput(f"Cannot keep the development certificate in {folder}: {error}") from error
    except ValueError as error:
        raise InvalidInput(f"{authority_key} is damaged; delete it to get a new authority") from error
    return DevelopmentCertificate(authority, certificate)


def _context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An encrypted key would make OpenSSL ask on the terminal; an empty password is an error instead.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        certificate_info(certificate)
        where = key or certificate
        reason = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "cannot be used"
        detail = error.reason or "no key"
        raise InvalidInput(f"The certificate {certificate} and the key in {where} {reason} ({detail})") from error
    except OSError as error:
        raise InvalidInput(f"Cannot read {certificate} or {key or certificate}: {error.strerror}") from error
    return context


def _serves(certificate: Path, authority: Path, names: tuple[str, ...], now: datetime) -> bool:
    """Whether the certificate is the authority's, for all the names, and valid for a while yet."""
    if not certificate.exists():
        return False
    try:
        info = certificate_info(certificate)
        leaf = x509.load_pem_x509_certificate(_certificate_pem(certificate.read_bytes()))
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.read_bytes()))
        _context(certificate, None)
    except Exception as error:  # whatever is wrong with it, a new one is the answer
        logger.info("development certificate is replaced", reason=str(error))
        return False
    return set(names) <= set(info.names) and info.expires_in(now) > RENEW_BEFORE


def _names(hosts: Iterable[str]) -> tuple[str, ...]:
    names = {"localhost": None, "127.0.0.1": None, "::1": None}
    for host in (socket.gethostname().lower(), *hosts):
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            if host:
                names[host.encode("idna").decode("ascii").lower()] = None
        else:
            if not address.is_unspecified:
                names[str(address)] = None
    return tuple(names)


def _certificate_pem(pem: bytes) -> bytes:
    """The first certificate of a PEM file that may hold a key before it. Raises ValueError."""
    start, end = pem.find(b"-----BEGIN CERTIFICATE-----"), b"-----END CERTIFICATE-----"
    stop = pem.find(end, start)
    if start < 0 or stop < 0:
        raise ValueError("no certificate")
    return pem[start : stop + len(end)] + b"\n"


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Writes a file whole or not at all, never readable by more than ``mode`` allows."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
