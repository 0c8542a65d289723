"""Figures are judged and shown as they are."""

from __future__ import annotations

import json

import pytest

from offhook.bench.report import Figure, Report, document, table, text


@pytest.mark.parametrize(
    ("figure", "ratio", "met"),
    [
        (Figure("no target", 5.0, "us", floor=2.0), 2.5, None),
        (Figure("value met", 5.0, "us", floor=2.0, target=5.0), 2.5, True),
        (Figure("value missed", 5.1, "us", target=5.0), None, False),
        (Figure("ratio met", 3.0, "us", floor=2.0, target=1.6, relative=True), 1.5, True),
        (Figure("ratio missed", 3.4, "us", floor=2.0, target=1.6, relative=True), 1.7, False),
        (Figure("ratio to a base", 3.0, "us", floor=1.0, target=0.6, relative=True, base=6.0), 0.5, True),
    ],
)
def test_ratio_and_target(figure: Figure, ratio: float | None, met: bool | None) -> None:
    assert figure.ratio == ratio
    assert figure.met is met


def test_the_table_has_a_line_for_each_figure() -> None:
    figures = [Figure("first", 700.0, "us CPU", 30.0, 600.0), Figure("second", 3.25, "KiB")]
    head, first, second = table(figures).splitlines()
    assert head.split() == ["FIGURE", "VALUE", "FLOOR", "RATIO", "TARGET", "MET"]
    assert first.split() == ["first", "700.0", "us", "CPU", "30.0", "23.33x", "600", "us", "CPU", "no"]
    assert second.split() == ["second", "3.2", "KiB"]


def test_the_document_has_the_same() -> None:
    read = json.loads(document(Report([Figure("one", 2.0, "us", 1.0, 1.6, relative=True)]), 12.34))
    assert read["seconds"] == 12.3
    assert (read["cluster"], read["note"]) == (None, None)
    (line,) = read["figures"]
    assert (line["name"], line["value"], line["floor"], line["ratio"], line["met"]) == ("one", 2.0, 1.0, 2.0, False)


def test_the_text_has_the_figures_and_what_is_missing() -> None:
    shown = text(Report([Figure("one", 2.0, "us")], note="Cluster: left out."), 12.34)
    assert shown.splitlines()[1].split() == ["one", "2.0", "us"]
    assert shown.endswith("\n\nCluster: left out.\n\nMeasured in 12 s.")
