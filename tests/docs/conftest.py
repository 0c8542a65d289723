"""The servers on which the documents are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.docs.blocks import Proof, Unit, of
from tests.docs.reader import Reader, reading

ALONE = "docs/guides/functions.md"
"""The page whose server has functions; all others share one."""

ReaderOf = Callable[[Unit], Reader]


@pytest.fixture(scope="module")
def reader_of() -> Iterator[ReaderOf]:
    """Gives the reader of a page. What a page changes on its server concerns the tests of one module alone."""
    readers: dict[bool, Reader] = {}
    files = {"password.txt": "a password of hers", "secret.txt": "s" * 32, "key.pem": public_key()}
    with ExitStack() as stack:

        def give(unit: Unit) -> Reader:
            alone = unit.page == ALONE
            if alone not in readers:
                served = [found.text for found in of(Proof.FUNCTIONS) if found.page == ALONE]
                readers[alone] = stack.enter_context(
                    reading("--functions", "functions", files={"functions.py": served[0]})
                    if alone
                    else reading(files=files)
                )
            return readers[alone]

        yield give


def public_key() -> str:
    """A key for tokens, as an identity provider would give it."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form).decode()
