from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from openrlhf_maxk.evaluation.reports.formats import (
    comparisons_csv,
    comparisons_markdown,
    csv_text,
    latex,
    latex_text,
    markdown,
)
from openrlhf_maxk.evaluation.statistics.comparison import (
    ALL,
    by_data_set,
    compare,
    curve_table,
    only_found_by,
    ranked,
)
from openrlhf_maxk.evaluation.statistics.scores import Scores
from openrlhf_maxk.evaluation.statistics.significance import holm, signed_rank

KS = np.asarray([1, 2, 4])


def make(strength: float, problems: int = 60, seed: int = 0, samples: int = 8) -> Scores:
    """Problems of two data sets, solved the more often the greater the strength."""
    difficulty = np.random.default_rng(99).random(problems)
    rng = np.random.default_rng(seed)
    groups = {f"p{i}": rng.binomial(4, strength * difficulty[i], samples) / 4 for i in range(problems)}
    return Scores.from_groups(groups, sources={f"p{i}": "one" if i % 3 else "two" for i in range(problems)})


def test_comparisons_are_paired_corrected_together_and_complete():
    base, better, same = make(0.5), make(0.9, seed=1), make(0.5, seed=2)
    # Another order, and problems that the others lack: only the shared ones count.
    shuffled = better.take(list(range(59, -1, -1)))
    found = compare({"base": base, "better": shuffled, "same": same.take(range(30))}, "max", KS)
    assert len(found) == 2 * 3 * 3  # evaluations, data sets (and all), values of k
    assert {c.data_set for c in found} == {"one", "two", ALL}
    assert holm([c.test.p_value for c in found]) == [c.adjusted for c in found]
    for c in found:
        rows = [i for i in range(30) if c.data_set == ALL or base.sources[i] == c.data_set]
        other = better if c.name == "better" else same
        column = KS.tolist().index(c.k)
        d = (other.take(rows).estimates("max", KS) - base.take(rows).estimates("max", KS))[:, column]
        assert c.difference == pytest.approx(d.mean())
        assert c.low <= c.difference <= c.high
        assert c.test.p_value == pytest.approx(signed_rank(d).p_value)
        assert c.test.problems == len(rows)
    assert all(c.significant for c in found if c.name == "better" and c.data_set == ALL and c.k < 4)
    assert not any(c.significant for c in found if c.name == "same")


def test_marks_of_the_papers_table_2():
    evaluations = {"base": make(0.5), "best": make(0.95, seed=1), "twin": make(0.5)}
    table = by_data_set(evaluations, "max", 2)
    assert table.columns == ("two", "one", ALL)
    assert table.best.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert table.second.tolist() == [[True] * 3, [False] * 3, [True] * 3]  # equal values share the second place
    assert table.star[1].any()
    assert not table.star[[0, 2]].any()
    level = by_data_set({"a": make(0.5), "b": make(0.5)}, "max", 2)
    assert level.best.all()  # equal: both are best, none second, no star
    assert not level.second.any()
    assert not level.star.any()


def test_ranked_with_gaps():
    values = np.asarray([[0.5, np.nan], [0.7, np.nan], [0.7 + 1e-13, 0.2]])
    best, second = ranked(values)
    assert best.tolist() == [[False, False], [True, False], [True, True]]
    assert second.tolist() == [[False, False], [False, False], [False, False]]


def test_tables_as_text():
    table = by_data_set({"base_1": make(0.5), "a|b & 50%": make(0.95, seed=1)}, "max", 2)
    text = markdown(table)
    assert f"**{table.values[1, 2]:.3f}\\*** |" in text
    assert f"<u>{table.values[0, 2]:.3f}</u>" in text
    assert r"a\|b & 50%" in text
    tex = latex(table)
    assert rf"base\_1 & \underline{{{table.values[0, 0]:.3f}}}" in tex
    assert rf"a|b \& 50\% & \textbf{{{table.values[1, 0]:.3f}" in tex
    assert tex.count(r"\\") == 3
    assert tex.count("{") == tex.count("}")
    assert (
        latex_text("p < 0.05") == r"p \textless{} 0.05"
    )  # a bare < prints as an exclamation mark in LaTeX's own fonts
    assert latex_text("a_b\\c{}^") == r"a\_b\textbackslash{}c\{\}\textasciicircum{}"
    assert csv_text(["a"], [[1.5], [np.nan]]) == 'a\n1.5\n""\n'


def test_comparisons_as_text():
    found = compare({"base": make(0.5), "better": make(0.9, seed=1)}, "pass", KS)
    rows = list(csv.DictReader(io.StringIO(comparisons_csv(found))))
    assert len(rows) == len(found) == 9
    assert float(rows[0]["difference"]) == found[0].difference
    assert float(rows[-1]["p_holm"]) == found[-1].adjusted
    assert comparisons_markdown(found).count("\n") == 11


def test_curve_table_has_missing_values_where_k_is_too_large():
    table = curve_table({"few": make(0.5, samples=2), "many": make(0.5)}, "max", KS, "t")
    assert np.isnan(table.values[0, 2])
    assert table.best[1, 2]
    assert "| - |" in markdown(table)


def test_only_found_by():
    a = Scores.from_groups({"x": [1.0, 0.0], "y": [0.0, 0.0], "z": [1.0]})
    b = Scores.from_groups({"x": [1.0], "y": [0.0, 1.0], "z": [0.5]})
    assert only_found_by({"a": a, "b": b}) == {"a": ["z"], "b": ["y"]}
