"""Every block of every document is proved, or is named with a reason as one that is not."""

from __future__ import annotations

from tests.docs.blocks import ALL, PAGES, Proof, blocks, proof
from tests.docs.exceptions import ELSEWHERE, LINES, LOOSELY_TYPED, UNPROVED


def test_every_block_is_accounted_for() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) > 100
    assert [str(block) for block in found if proof(block) is None] == []
    assert sum(len(unit.blocks) for unit in ALL) == len(found)


def test_every_way_of_proof_is_used() -> None:
    assert {unit.proof for unit in ALL} == set(Proof)


def test_every_exemption_is_needed() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    idle: list[object] = [exemption for exemption in UNPROVED if not any(exemption.fits(b.page, b.text) for b in found)]
    lines = [(block.page, line) for block in found for line in block.lines]
    idle += [exemption for exemption in LINES if not any(exemption.fits(page, line) for page, line in lines)]
    titles = {block.title for block in found}
    idle += [name for name in ELSEWHERE if name not in titles]
    idle += [name for name in LOOSELY_TYPED if not any(block.page == name for block in found)]
    assert idle == []
    assert all(exemption.reason for exemption in (*UNPROVED, *LINES))
