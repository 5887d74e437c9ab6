"""The HTML report: what stands in its tables, and what keeps it legible on narrow screens, in print and without colour.

Evaluations are made by the real pipeline from completions that follow from a seed; nothing is executed.
"""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from html import escape, unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.evaluation.pipeline import Plan, evaluate
from openrlhf_maxk.evaluation.reports import charts, distributions, figures, report, tables
from openrlhf_maxk.evaluation.reports.formats import comparison_rows, number, signed
from openrlhf_maxk.evaluation.samples.problem_set import load_problem_set
from openrlhf_maxk.evaluation.samples.records import Sampling
from openrlhf_maxk.evaluation.scoring.loading import load_evaluations
from openrlhf_maxk.evaluation.statistics.comparison import compare
from openrlhf_maxk.evaluation.statistics.metrics import MAIN, METRICS
from openrlhf_maxk.evaluation.statistics.scores import Scores

from ..fakes import FakeRunner, FakeSampler, extract, make_problems

LONG = "Qwen2.5-Coder-7B-Instruct_offpolicy_bon_k8_lr1e-6_step_00400"
NAMES = ("base", LONG, "max@2", "a <b>bold</b> name")
SAMPLES = 8


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """Four evaluations of the same problems: two data sets, three difficulties."""
    base = tmp_path_factory.mktemp("page")
    make_problems(base / "problems", count=12)
    problems = load_problem_set(base / "problems")
    folders = []
    for run, name in enumerate(NAMES):
        sampler = FakeSampler(name=f"model {run}")
        plan = Plan(name, problems, problems.prompts(), sampler, Sampling(), SAMPLES)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("openrlhf_maxk.evaluation.pipeline.plot_curves", lambda *a, **k: None)
            evaluate(plan, base / str(run), FakeRunner(), extract)
        folders.append(str(base / str(run)))
    return load_evaluations(folders)


def page_of(evaluations, tmp_path) -> str:
    """The page alone: no figure is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_draw", lambda *a, **k: {})
        report.write_comparison(evaluations, tmp_path / "out")
    return (tmp_path / "out" / report.REPORT).read_text()


@pytest.fixture(scope="module")
def page(evaluations, tmp_path_factory):
    return page_of(evaluations, tmp_path_factory.mktemp("report"))


class Tables(HTMLParser):
    """The text of every table, row by row; its widths in columns; how deep in ``details`` it is; all names."""

    def __init__(self, text):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.widths: list[list[int]] = []
        self.depths: list[int] = []
        self.names: list[str] = []
        self._depth, self._open = 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "details":
            self._depth += 1
        elif tag == "table":
            self.tables.append([])
            self.widths.append([])
            self.depths.append(self._depth)
        elif tag == "tr":
            self.tables[-1].append([])
            self.widths[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.widths[-1][-1] += int(attrs.get("colspan", 1))
        elif attrs.get("class") == "name":
            self.names.append("")
        if tag in ("td", "th", "span"):
            self._open.append(attrs.get("class") if tag == "span" else tag)

    def handle_endtag(self, tag):
        if tag == "details":
            self._depth -= 1
        elif tag in ("td", "th", "span"):
            self._open.pop()

    def handle_data(self, data):
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data
        if "name" in self._open:
            self.names[-1] += data

    def headed(self, *head):
        """The tables whose first row begins so."""
        return [table for table in self.tables if table[0][: len(head)] == list(head)]


def css_of(page) -> dict[str, list[tuple[str, str]]]:
    """Selectors and bodies of the page's rules, by the medium they are for ("" for all)."""
    text = page[page.index("<style>") + 7 : page.index("</style>")]
    media = r"@media ([^{]+)\{((?:[^{}]*\{[^{}]*\})*)\s*\}"
    parts = {medium.strip(): body for medium, body in re.findall(media, text)} | {"": re.sub(media, "", text)}
    return {
        medium: [(selector.strip(), body.strip()) for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", part)]
        for medium, part in parts.items()
    }


def test_every_row_fills_its_table(page):
    found = Tables(page)
    assert len(found.tables) > 20
    for widths in found.widths:
        assert len(widths) > 1
        assert len(set(widths)) == 1


def test_no_column_becomes_one_letter_wide(page):
    """A cell whose words may break anywhere shrinks to a letter where the table is too wide. So only names may break,
    behind a certain width, and on a screen tables are as wide as their columns need, and scroll."""
    css = css_of(page)
    for selector, body in (rule for rules in css.values() for rule in rules):
        assert "overflow-wrap" not in body or not re.search(r"\b(th|td|table)\b", selector)
    screen, printed = dict(css[""]), dict(css["print"])
    assert "width: max-content" in screen["table"]
    assert "overflow-x: auto" in screen[".scroll"]
    assert "max-width" in screen[".name"]
    assert "max-width: 100%" in printed["table"]
    assert "min-width" in printed[".name"]
    found = Tables(page)
    first_cells = [row[0] for table in found.tables for row in table[1:] if len(row) > 1]
    assert found.names == first_cells


def test_differences_are_grouped_by_evaluation(evaluations, page):
    scores = {name: evaluated.scores for name, evaluated in evaluations.items()}
    for metric, everything, by_set in zip(
        METRICS, *[iter(Tables(page).headed("metric", "difference"))] * 2, strict=True
    ):
        found = compare(scores, metric, np.asarray([1, 2, 4, 8]))
        rows = [(c, row[3:]) for c, row in zip(found, comparison_rows(found), strict=True)]
        want = []
        for name in NAMES[1:]:
            want += [[name], *(row for c, row in rows if c.name == name and c.data_set == "all")]
        assert everything[1:] == want
        want = []
        for data_set in ("game", "toy"):
            for name in NAMES[1:]:
                own = [row for c, row in rows if (c.name, c.data_set) == (name, data_set)]
                want += [[f"{data_set}: {name}"], *own]
        assert by_set[1:] == want


def test_what_is_folded_is_printed(page):
    """Metrics besides max@k and pass@k, and differences by data set, are folded; while printing nothing is."""
    heads = {tuple(metric.label(k) for k in (1, 2, 4, 8)): name for name, metric in METRICS.items()}
    found = Tables(page)
    for table, depth in zip(found.tables, found.depths, strict=True):
        if table[0][0] == "metric":
            assert depth == (not table[2][0].startswith(("max@", "pass@"))) + (table[1][0] not in NAMES)
        else:
            assert depth == (heads.get(tuple(table[0][1:]), "max") not in MAIN)
    script = page[page.rindex("<script>") :]
    before = re.search(r'"beforeprint", (.*?)\n}\);', script, re.DOTALL)[1]
    assert 'querySelectorAll("details:not([open])")' in before
    assert "details.open = true" in before
    assert re.search(r'"afterprint", \(\) => unfolded.forEach\(.*details.open = false', script)


def test_one_evaluation_has_no_best(evaluations, tmp_path):
    page = page_of({NAMES[0]: evaluations[NAMES[0]]}, tmp_path)
    body = page[page.index("<body>") :]
    for absent in ("<b>", "<u>", "Bold:", "share", 'id="only"', "#only", "#differences"):
        assert absent not in body[: body.index("<script")], absent
    by_difficulty = Tables(page).headed("difficulty", "problems")
    assert [[row[0] for row in table] for table in by_difficulty] == [["difficulty", "0", "1", "2"]]


def test_difficulties_in_their_order_those_of_later_evaluations_too():
    def scores(*difficulties):
        groups = {f"p{i}": [float(i), 0.0] for i in range(len(difficulties))}
        return Scores.from_groups(groups, difficulties=dict(zip(groups, difficulties, strict=True)))

    found = report._difficulties({"a": scores("hard", "Easy"), "b": scores("medium", "Easy", "10", "9")}, [("max", 2)])
    assert found["difficulty_head"] == ["evaluation", "problems", "max@2"]
    assert list(found["difficulties"].items()) == [
        ("Easy", [["a", "1", "1.000"], ["b", "1", "1.000"]]),
        ("medium", [["b", "1", "0.000"]]),
        ("hard", [["a", "1", "0.000"]]),
        ("9", [["b", "1", "3.000"]]),
        ("10", [["b", "1", "2.000"]]),
    ]
    assert report._difficulties({"a": scores("easy", "easy")}, [("max", 1)])["difficulties"] == {}
    assert list(scores("hard", "easy", "medium").by_difficulty()) == ["easy", "medium", "hard"]


def test_numbers_as_text():
    assert [signed(value) for value in (-0.0004, 0.0004, -0.0006, np.nan)] == ["+0.000", "+0.000", "-0.001", "-"]
    assert [number(value) for value in (0.12345, -1e-18, np.nan)] == ["0.123", "0.000", "-"]
    assert tables._cell(0.1, 0.05, 0.2, 3, of=3) == "0.100 [dim]0.050-0.200[/dim]"
    assert tables._cell(-0.1, -0.2, -1e-18, 3, of=3) == "-0.100 [dim]-0.200 to 0.000[/dim]"


def test_cells_that_read_the_same_have_the_same_shade():
    values = np.asarray([[0.1, 0.0001, np.nan], [0.3, 0.0004, 0.5], [0.2, 0.0, 0.5]])
    np.testing.assert_allclose(distributions.shades(values), [[0, 0, np.nan], [1, 0, 0], [0.5, 0, 0]])


@given(st.floats(-10, 10), st.sampled_from([0.0, 1e-9, 3e-3, 0.2, 1.0, 7.0, 55.0]))
def test_ticks_are_few_round_even_and_around_all(low, span):
    ticks = charts.nice_ticks(low, low + span)
    assert 4 <= len(ticks) <= 8
    assert ticks[0] <= low + 1e-6
    assert ticks[-1] >= low + span - 1e-6
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert float(f"{steps[0]:.1e}") == pytest.approx(steps[0], rel=1e-6)
    assert f"{steps[0]:.0e}"[0] in "125"


def test_a_colour_that_comes_back_has_another_marker_and_other_dashes():
    for styles in ([charts.style(i) for i in range(14)], [figures.line_style(i) for i in range(14)]):
        colour, dashes = ("light", "dashes") if "light" in styles[0] else ("color", "linestyle")
        for what in ("marker", dashes):
            assert len({(style[colour], str(style[what])) for style in styles}) == 14
    assert len(charts.DARK_COLOURS) == len(figures.COLOURS) == len(charts.MARKERS) == len(charts.DASHES)


@pytest.mark.parametrize("count", [3, 4])
def test_filled_distributions_of_many_would_cover_each_other(evaluations, monkeypatch, count):
    drawn = []

    class Axis:
        def __getattr__(self, name):
            return lambda *a, **options: drawn.append(options["histtype"]) if name == "hist" else None

    monkeypatch.setattr(distributions, "figure", lambda *a, **k: nullcontext((None, [Axis()])))
    monkeypatch.setattr(distributions, "legend_below", lambda *a: None)
    scores = {name: evaluated.scores for name, evaluated in list(evaluations.items())[:count]}
    assert distributions.plot_entropy(scores, "unused")
    assert drawn.count("step") == count
    assert drawn.count("stepfilled") == (count if count <= figures.MOST_BANDS else 0)


@pytest.mark.parametrize("count", [2, 4])
def test_curves_stand_where_their_numbers_are(evaluations, count):
    """Read off the drawing with its own ticks, points and intervals are the estimates: bands for few evaluations, bars
    beside each other for many."""
    scores = {name: evaluated.scores for name, evaluated in list(evaluations.items())[:count]}
    ks = np.asarray([1, 2, 8])
    for metric, chart in zip(METRICS, charts.charts(scores, list(METRICS), ks), strict=True):
        places, values = zip(*((y, float(text)) for y, text in chart.y_ticks), strict=True)
        assert list(places) == sorted(places, reverse=True)  # what is higher on the page is smaller

        def read(y, places=places, values=values):
            return np.interp(-np.asarray(y), -np.asarray(places), values)

        assert [text for _, text in chart.x_ticks] == ["1", "2", "8"]
        assert chart.x[2] - chart.x[1] == pytest.approx(2 * (chart.x[1] - chart.x[0]), abs=0.02)  # powers of two
        for of_all, line, texts in zip(scores.values(), chart.lines, chart.texts, strict=True):
            mean, low, high, _ = of_all.curve(metric, ks)
            near = {"atol": 0.01 * (values[-1] - values[0])}
            x, y = zip(*line.points, strict=True)
            np.testing.assert_allclose(read(y), mean, **near)
            if count <= figures.MOST_BANDS:
                outline = [tuple(map(float, pair.split(","))) for pair in line.band.split()]
                np.testing.assert_allclose(read([y for _, y in outline]), [*low, *reversed(high)], **near)
                assert x == tuple(chart.x)
                assert line.bars == []
            else:
                assert [bar[0] for bar in line.bars] == list(x)
                np.testing.assert_allclose(read([bar[1] for bar in line.bars]), low, **near)
                np.testing.assert_allclose(read([bar[2] for bar in line.bars]), high, **near)
                assert line.band == ""
            assert texts[0] == f"{mean[0]:.3f} ({low[0]:.3f} to {high[0]:.3f})"
        if count > figures.MOST_BANDS:
            starts = [line.points[0][0] for line in chart.lines]
            assert starts == sorted(set(starts))


def test_what_pointing_at_a_curve_shows(evaluations, page):
    """The script has each value of each curve as text, and there is a button and a line for every evaluation."""
    told = json.loads(re.search(r'id="values">(.*?)</script>', page)[1])
    assert len(told) == page.count("<figure>") == len(METRICS)
    assert page.count('aria-pressed="true"') == len(NAMES)
    assert page.count('class="run" data-run="') == len(NAMES) * len(METRICS)
    for metric, chart in zip(METRICS.values(), told, strict=True):
        assert chart["labels"] == [metric.label(k) for k in (1, 2, 4, 8)]
        assert len(chart["x"]) == 4
        for evaluated, values in zip(evaluations.values(), chart["values"], strict=True):
            mean, low, high, _ = evaluated.scores.curve(metric.name, [1, 2, 4, 8])
            assert values == [f"{m:.3f} ({a:.3f} to {b:.3f})" for m, a, b in zip(mean, low, high, strict=True)]
    script = page[page.rindex("<script>") :]
    assert 'tip.classList.toggle("above"' in script  # what is shown under the last row of a window would not be seen
    assert ".tip.above" in dict(css_of(page)[""])


def test_what_only_one_finds(evaluations, page):
    """How many problems each evaluation alone solves, and programs that do."""
    text = page[page.index('id="only"') : page.index('id="settings"')]
    solved = {
        name: {p for p, count in zip(e.scores.ids, e.scores.correct_counts.tolist(), strict=True) if count}
        for name, e in evaluations.items()
    }
    shown = 0
    for name, evaluated in evaluations.items():
        alone = solved[name] - set().union(*(of for other, of in solved.items() if other != name))
        heading = f"<h3>{escape(name)}: {len(alone)} problem{'s' * (len(alone) != 1)}</h3>"
        part = text[text.index(heading) + len(heading) :].split("<h3>")[0]
        for problem, correct, program in re.findall(
            r"<summary>(\S+): (\d+) of 8 .*?</pre>\n<pre>(.*?)</pre>", part, re.S
        ):
            assert problem in alone
            p = evaluated.scores.ids.index(problem)
            assert int(correct) == evaluated.scores.correct_counts[p]
            records = {r["index"]: r["completion"] for r in evaluated.run.samples if r["problem"] == problem}
            own = evaluated.scores.groups(evaluated.scores.correct)[p]
            assert unescape(program) == records[int(np.flatnonzero(own)[0])]
            shown += 1
    assert shown
