"""The numbers of "The Best of N Worlds" (Tables 1 to 14), to be put beside a run's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, IntArray

DATA_SETS = ("CodeContests", "LiveCodeBench", "LiveBench", "CodeForces", "MBPP")


class Column(NamedTuple):
    """What a column of a table holds."""

    data_set: str
    metric: str
    k: int


@dataclass(frozen=True, eq=False)
class PaperTable:
    """One table of the paper."""

    number: int
    shows: str
    columns: tuple[Column, ...]  # (C,)
    rows: tuple[str, ...]  # (R,) the methods
    values: FloatArray  # (R, C)
    significant: tuple[tuple[str, str], ...]  # method and data set, where the paper has a star (Table 2)

    def value(self, row: str, data_set: str, metric: str, k: int) -> float:
        """One number; KeyError where the table has none."""
        column = Column(data_set, metric, k)
        if row not in self.rows or column not in self.columns:
            raise KeyError(f"Table {self.number} has no {metric}@{k} of {row!r} on {data_set}")
        return float(self.values[self.rows.index(row), self.columns.index(column)])


def paper_table(number: int) -> PaperTable:
    """Table 1 to 14; KeyError for any other number."""
    content = _content()["tables"].get(str(number))
    if content is None:
        raise KeyError(f"the paper has Tables 1 to {len(_content()['tables'])}, not {number}")
    stars = content.get("significant", {})
    return PaperTable(
        number=number,
        shows=content["shows"],
        columns=tuple(Column(*column) for column in content["columns"]),
        rows=tuple(content["rows"]),
        values=np.asarray(list(content["rows"].values()), dtype=np.float64),
        significant=tuple((row, data_set) for row, sets in stars.items() for data_set in sets),
    )


def paper_curves(data_set: str, metric: str) -> tuple[IntArray, dict[str, FloatArray]]:
    """Tables 5 to 14: the values of k, and the curve of every method; KeyError for an unknown data set.

    The name of the data set is taken whatever its case, "code_contests" included.
    """
    name = known_data_set(data_set)
    if name is None:
        raise KeyError(f"the paper has no numbers on {data_set!r}; it has {', '.join(DATA_SETS)}")
    table = paper_table(5 + 2 * DATA_SETS.index(name) + (metric == "max"))
    ks = np.asarray([column.k for column in table.columns], dtype=np.int64)
    return ks, dict(zip(table.rows, table.values, strict=True))


def known_data_set(name: str) -> str | None:
    """The paper's name of a data set; None if it is not one of the paper's."""
    plain = "".join(c for c in name.lower() if c.isalnum())
    return next((known for known in DATA_SETS if known.lower() == plain), None)


def paper_methods() -> Sequence[str]:
    """The methods of the paper, in its order."""
    return paper_table(2).rows


@cache
def _content() -> dict[str, Any]:
    return json.loads(files("openrlhf_maxk.evaluation.reports").joinpath("paper.json").read_text(encoding="utf-8"))
