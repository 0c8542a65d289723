"""Pages."""

from __future__ import annotations

import pytest

from offhook.domain.values import Page, PageRequest


@pytest.mark.parametrize(
    ("number", "total", "pages", "previous", "following"),
    [(0, 0, 0, False, False), (0, 10, 1, False, False), (0, 11, 2, False, True), (1, 11, 2, True, False)],
)
def test_pages_know_their_neighbours(number: int, total: int, pages: int, previous: bool, following: bool) -> None:
    page: Page[int] = Page([], total, PageRequest(number, 10))
    assert (page.pages, page.has_previous, page.has_next) == (pages, previous, following)
