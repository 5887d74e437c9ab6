from __future__ import annotations

import re
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from openrlhf_maxk.evaluation.reports.figures import plot_curves
from openrlhf_maxk.evaluation.reports.tables import difference_table, metric_table, print_tables
from openrlhf_maxk.evaluation.statistics.comparison import compare
from openrlhf_maxk.evaluation.statistics.scores import Scores, natural_key, paired, shown_ks, sums


def make(groups, **more):
    return Scores.from_groups({f"p{i}": group for i, group in enumerate(groups)}, **more)


def test_estimates_of_ragged_problems():
    scores = make([[0.0, 1.0], [0.25, 1.0, 0.5, 1.0]])
    assert scores.samples.tolist() == [2, 4]
    assert scores.correct_counts.tolist() == [1, 2]
    np.testing.assert_allclose(scores.estimates("max", [1, 2]), [[0.5, 1.0], [2.75 / 4, (0.5 + 5 * 1.0) / 6]])
    np.testing.assert_allclose(scores.estimates("pass", [1, 2]), [[0.5, 1.0], [0.5, 5 / 6]])
    with pytest.raises(ValueError, match="known are max, pass, selected"):
        scores.estimates("median", [1])


@given(st.lists(st.lists(st.floats(0, 1), max_size=5), min_size=1, max_size=6), st.randoms())
def test_take_keeps_problems_whole(groups, random):
    scores = make(groups)
    one = random.randrange(len(groups))
    order = list(range(len(groups)))
    random.shuffle(order)
    shuffled = scores.take(order)
    for row, p in enumerate(order):
        assert shuffled.ids[row] == f"p{p}"
        np.testing.assert_array_equal(shuffled.groups(shuffled.rewards)[row], groups[p])
    assert scores.take([one]).ids == (f"p{one}",)


def test_sums_of_empty_problems_are_zero():
    scores = make([[], [1.0, 1.0], []])
    assert sums(scores.correct, scores.offsets).tolist() == [0, 2, 0]
    assert scores.largest_k == 0


def test_splits_by_source_and_difficulty_in_natural_order():
    scores = make([[0.0], [1.0], [0.0]], difficulties={"p0": "10", "p1": "2", "p2": "10"}, sources={"p1": "mbpp"})
    assert list(scores.by_difficulty()) == ["2", "10"]
    assert scores.by_difficulty()["10"].ids == ("p0", "p2")
    assert scores.by_source()["mbpp"].ids == ("p1",)
    assert sorted(["a10", "a2", "", "b"], key=natural_key) == ["", "a2", "a10", "b"]


def test_pairing_uses_common_problems_in_the_first_order():
    a = Scores.from_groups({"x": [0.0], "y": [1.0], "z": [0.5]})
    b = Scores.from_groups({"z": [1.0, 1.0], "x": [0.25]})
    pairs = paired({"a": a, "b": b})
    assert pairs["a"].ids == pairs["b"].ids == ("x", "z")
    assert pairs["b"].rewards.tolist() == [0.25, 1.0, 1.0]
    with pytest.raises(ValueError, match="no problem in common"):
        paired({"a": a, "c": Scores.from_groups({"w": [0.0]})})


def test_shown_ks():
    few, many = make([[0.0] * 8, [0.0] * 20]), make([[0.0] * 32])
    assert shown_ks({"few": few, "many": many}).tolist() == [1, 2, 4, 8]
    assert shown_ks({"few": few}, [1, 16]).tolist() == [1, 16]
    with pytest.raises(ValueError, match="k = 32 needs that many samples of a problem; there are 20"):
        shown_ks({"few": few, "many": many}, [1, 32])
    with pytest.raises(ValueError, match="no scored sample"):
        shown_ks({"none": make([[], [1.0]])})


def text_of(renderable):
    console = Console(width=200, record=True, file=StringIO())
    console.print(renderable)
    return console.export_text()


def test_table_shows_estimates_differences_and_partial_columns():
    before = make([[0.0, 0.5], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]] * 10)
    after = make([[1.0, 0.5], [0.5, 0.5], [1.0, 1.0], [1.0, 0.0, 0.0, 0.0]] * 10)
    text = text_of(metric_table({"base": before, "trained": after}, ["max"], [1, 2]))
    assert "max@1" in text
    assert "0.188" in text  # mean of 0.25, 0, 0.5, 0
    text = text_of(difference_table({"base": before, "trained": after}, ["max"], [1, 2]))
    assert "+0.438*" in text  # mean of 0.5, 0.5, 0.5, 0.25
    text = text_of(metric_table({"trained": after}, ["pass"], [4]))
    assert "1.000" in text
    assert "(10 of 40)" in text


def test_differences_of_four_evaluations():
    """A column for each of the three later ones, on the problems that all four share; stars as in the report."""
    rng = np.random.default_rng(0)
    chances = (0.2, 0.6, 0.2, 0.35)
    runs = {f"run {i}": make(rng.binomial(1, chance, (40, 4)).astype(float)) for i, chance in enumerate(chances)}
    runs["run 2"] = runs["run 2"].take(range(30))
    console_table = difference_table(runs, ["max", "min"], [1, 2, 4])
    assert [str(column.header) for column in console_table.columns] == ["", "run 1", "run 2", "run 3"]
    assert console_table.title == "differences from run 0"
    rows = [
        re.split(r"\s*│\s*", line)[1:-1] for line in text_of(console_table).splitlines() if re.search(r"m..@", line)
    ]
    assert [row[0] for row in rows] == ["max@1", "max@2", "max@4", "min@1", "min@2", "min@4"]
    found = [c for metric in ("max", "min") for c in compare(runs, metric, np.asarray([1, 2, 4]))]
    for label, *cells in rows:
        for name, cell in zip(("run 1", "run 2", "run 3"), cells, strict=True):
            (c,) = (c for c in found if (c.label, c.name) == (label, name))
            metric, k = label.split("@")
            own, base = (runs[which].take(range(30)).estimates(metric, [int(k)]) for which in (name, "run 0"))
            assert cell.startswith(f"{(own - base).mean():+z.3f}{'*' if c.significant else ' '}")
    assert any("*" in cell for cell in rows[0])
    assert not any("*" in row[2] for row in rows)


def test_printed_summary_counts_lost_samples():
    console = Console(width=200, record=True, file=StringIO())
    print_tables({"base": make([[0.0, 1.0]], unscored={"p0": 3})}, console=console)
    assert "3 samples not scored" in console.export_text()


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_plot_is_written_in_the_format_of_its_name(tmp_path, ending):
    path = tmp_path / f"curves.{ending}"
    plot_curves({"base": make([[0.0, 1.0]] * 5), "trained": make([[1.0, 1.0]] * 5)}, path)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(start)
