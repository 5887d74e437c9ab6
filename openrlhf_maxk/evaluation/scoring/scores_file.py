"""Scores on disk: two Parquet tables, one row a problem and one row a sample, for any tool to read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from openrlhf_maxk.evaluation.statistics.metrics import UNKNOWN
from openrlhf_maxk.evaluation.statistics.scores import Details, Scores, offsets_of
from openrlhf_maxk.problems.verdict import Verdict

PROBLEMS, SAMPLES = "problems.parquet", "samples.parquet"
_TESTS = "tests_"  # columns of samples.parquet: how many tests ended in each verdict


def save_scores(folder: Path, scores: Scores) -> None:
    """Write the two tables into a folder that is there."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    problems = {
        "problem": list(scores.ids),
        "source": list(scores.sources),
        "difficulty": list(scores.difficulties),
        "samples": scores.samples,
        "correct": scores.correct_counts,
        "unscored": scores.unscored,
    }
    samples: dict[str, Any] = {
        "problem": pa.DictionaryArray.from_arrays(
            pa.array(np.repeat(np.arange(len(scores)), scores.samples), pa.int32()), pa.array(scores.ids, pa.string())
        ),
        "reward": scores.rewards,
        "correct": scores.correct,
    }
    if scores.details is not None:
        columns = {f.name: getattr(scores.details, f.name) for f in fields(Details)}
        counts = columns.pop("verdicts")
        samples |= columns | {f"{_TESTS}{verdict}": counts[:, v] for v, verdict in enumerate(Verdict)}
    schema = pa.schema([(name, pa.string()) for name in ("problem", "source", "difficulty")])
    schema = pa.schema([*schema, *((name, pa.int64()) for name in ("samples", "correct", "unscored"))])
    small: dict[str, Any] = {"compression": "zstd", "compression_level": 19}
    parquet.write_table(pa.table(problems, schema=schema), folder / PROBLEMS, **small)
    parquet.write_table(pa.table(samples), folder / SAMPLES, **small)


def load_scores(folder: Path) -> Scores:
    """Read what :func:`save_scores` wrote. Files from before answers were kept have none.

    Raises:
        FileNotFoundError: it is not there.
    """
    import pyarrow.parquet as parquet

    problems = parquet.read_table(folder / PROBLEMS)
    samples = parquet.read_table(folder / SAMPLES)
    columns = {name: samples[name].to_numpy() for name in samples.column_names if name != "problem"}
    details = None
    if "indices" in columns:
        columns.setdefault("answers", np.full(len(columns["reward"]), UNKNOWN))
        named = {f.name: columns[f.name] for f in fields(Details) if f.name != "verdicts"}
        counts = np.stack([columns[f"{_TESTS}{verdict}"] for verdict in Verdict], axis=1)
        details = Details(**named, verdicts=counts)
    return Scores(
        ids=tuple(problems["problem"].to_pylist()),
        sources=tuple(problems["source"].to_pylist()),
        difficulties=tuple(problems["difficulty"].to_pylist()),
        offsets=offsets_of(problems["samples"].to_numpy()),
        rewards=columns["reward"],
        correct=columns["correct"].astype(np.bool_),
        unscored=problems["unscored"].to_numpy(),
        details=details,
    )
