"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from openrlhf_maxk.evaluation.statistics.comparison import Comparison, MarkedTable

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
COMPARISON_HEAD = (
    "against",
    "evaluation",
    "data set",
    "metric",
    "difference",
    "95 % interval",
    "effect",
    "p",
    "p (Holm)",
)


def markdown(table: MarkedTable) -> str:
    """Bold, underlined and starred as in the paper."""
    lines = [f"**{table.title}**", "", _markdown_row(["", *map(_markdown_text, table.columns)])]
    lines.append("|---|" + "---:|" * len(table.columns))
    for r, name in enumerate(table.rows):
        cells = [_mark(table, r, c, ("**", "**"), ("<u>", "</u>"), r"\*") for c in range(len(table.columns))]
        lines.append(_markdown_row([_markdown_text(name), *cells]))
    return "\n".join([*lines, "", table.note, ""] if table.note else [*lines, ""])


def latex(table: MarkedTable) -> str:
    r"""A ``table`` for the booktabs package."""
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"    \toprule",
        "    " + " & ".join(["", *map(latex_text, table.columns)]).strip() + r" \\",
        r"    \midrule",
    ]
    for r, name in enumerate(table.rows):
        marks = ((r"\textbf{", "}"), (r"\underline{", "}"), "*")
        cells = [_mark(table, r, c, *marks) for c in range(len(table.columns))]
        lines.append("    " + " & ".join([latex_text(name), *cells]) + r" \\")
    caption = latex_text(f"{table.title}. {table.note}".strip())
    lines += [r"    \bottomrule", r"  \end{tabular}", rf"  \caption{{{caption}}}", r"\end{table}", ""]
    return "\n".join(lines)


def comparison_rows(comparisons: Iterable[Comparison]) -> list[list[str]]:
    """Comparisons as text, in the columns of ``COMPARISON_HEAD``."""
    return [
        [
            c.baseline,
            c.name,
            c.data_set,
            c.label,
            signed(c.difference) + ("*" if c.significant else ""),
            f"{signed(c.low)} to {signed(c.high)}",
            f"{c.test.rank_biserial:+z.2f}",
            p_value(c.test.p_value),
            p_value(c.adjusted),
        ]
        for c in comparisons
    ]


def comparisons_markdown(comparisons: Iterable[Comparison]) -> str:
    """One row a comparison."""
    lines = [_markdown_row(COMPARISON_HEAD), "|" + "---|" * len(COMPARISON_HEAD)]
    lines += [_markdown_row([_markdown_text(cell) for cell in row]) for row in comparison_rows(comparisons)]
    return "\n".join([*lines, ""])


def comparisons_csv(comparisons: Iterable[Comparison]) -> str:
    """All numbers of the comparisons, unrounded."""
    head = [
        *("baseline", "evaluation", "data_set", "metric", "k", "difference", "low", "high", "rank_biserial"),
        *("p_value", "p_holm", "problems", "differing_problems", "exact"),
    ]
    rows = [
        [
            *(c.baseline, c.name, c.data_set, c.metric, c.k, c.difference, c.low, c.high, c.test.rank_biserial),
            *(c.test.p_value, c.adjusted, c.test.problems, c.test.differing, c.test.exact),
        ]
        for c in comparisons
    ]
    return csv_text(head, rows)


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; NaN is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if isinstance(cell, float) and np.isnan(cell) else cell for cell in row] for row in rows)
    return out.getvalue()


def p_value(p: float) -> str:
    """Three digits, or powers of ten for small ones."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def latex_text(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def signed(value: float) -> str:
    """A difference with its sign, in three digits; what rounds to zero is "+0.000"."""
    return "-" if np.isnan(value) else f"{value:+z.3f}"


def number(value: float) -> str:
    """Three digits, as in the paper; what rounds to zero is "0.000"."""
    return "-" if np.isnan(value) else f"{value:z.3f}"


def _mark(table: MarkedTable, r: int, c: int, bold: Sequence[str], under: Sequence[str], star: str) -> str:
    text = number(table.values[r, c]) + (star if table.star[r, c] else "")
    if table.best[r, c]:
        return f"{bold[0]}{text}{bold[1]}"
    return f"{under[0]}{text}{under[1]}" if table.second[r, c] else text


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_text(text: str) -> str:
    return "".join("\\" + c if c in "\\|*_`<[" else c for c in text).replace("\n", " ")
