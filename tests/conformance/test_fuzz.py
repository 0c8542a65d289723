"""A bounded run of the fuzzers. OFFHOOK_FUZZ_SECONDS and OFFHOOK_FUZZ_SEED change its length and its course."""

from __future__ import annotations

import os
import random

import pytest
from tests.conformance.fuzz import TARGETS, run


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_fuzzing_finds_nothing(target: str) -> None:
    seconds = float(os.environ.get("OFFHOOK_FUZZ_SECONDS", "5"))
    seed = int(os.environ.get("OFFHOOK_FUZZ_SEED", random.SystemRandom().getrandbits(32)))
    assert run(target, seconds, seed) > 20 * seconds
