"""docs/results.md says what the results beside it say, and these are what the tool makes of the samples."""

from __future__ import annotations

import csv
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from openrlhf_maxk.cli import experiment as command

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
PUBLISHED = sorted((ROOT / "docs" / "results").iterdir())
TABLES = {
    "correction": ["max@k", "training"],
    "headline": ["max@k", "pass@k", "training"],
    "learning_rates": ["max@k"],
    "leave_one_out": ["max@k"],
    "objectives": ["max@k", "pass@k", "training"],
    "pretrained": ["max@k", "pass@k", "training"],
    "repeat": ["max@k"],
    "settings": ["max@k"],
    "staleness": ["max@k", "training"],
}
SIMULATED = ROOT / "docs" / "results" / "staleness" / "without_a_network.md"


def tables_of(text: str) -> set[tuple[str, str]]:
    """Every table with its title."""
    return {(title, table.strip()) for title, table in pairwise(text.split("\n\n")) if table.startswith("| | seeds |")}


def test_every_experiment_is_shown():
    assert [folder.name for folder in PUBLISHED] == sorted(TABLES)


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_page_has_the_tables_of_the_results(folder):
    found = tables_of((folder / "results.md").read_text(encoding="utf-8"))
    wanted = {(title, table) for title, table in found if any(f", {name}**" in title for name in TABLES[folder.name])}
    assert wanted
    assert wanted <= tables_of(PAGE)


def test_the_page_has_lines_of_the_table_without_a_network():
    shown = [line for line in PAGE.splitlines() if line.startswith(("| score |", "| sequence_clip |"))]
    assert len(shown) > 10
    assert set(shown) <= set(SIMULATED.read_text(encoding="utf-8").splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_results_are_made_from_the_samples(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "again", ignore=shutil.ignore_patterns("results.*", "figures"))
    plan = ROOT / "examples" / "plans" / f"{folder.name}.yaml"
    assert command.main([str(plan), "--out", str(tmp_path / "again"), "--results"]) == 0
    assert (tmp_path / "again" / "results.md").read_text() == (folder / "results.md").read_text()
    first, again = (list(csv.DictReader((path / "results.csv").open())) for path in (folder, tmp_path / "again"))
    assert [row["run"] for row in first] == [row["run"] for row in again]
    for name in ("mean", "difference", "low", "p_value"):
        numbers = [[float(row[name] or "nan") for row in rows] for rows in (first, again)]
        np.testing.assert_allclose(*numbers, rtol=1e-9, atol=1e-12)
