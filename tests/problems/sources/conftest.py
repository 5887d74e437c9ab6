"""Preparing data sets in tests: through the real pipeline, with programs run by a simple runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrlhf_maxk.problems.sources import SOURCES
from openrlhf_maxk.problems.sources.preparation.pipeline import Preparation

from .plain_runner import run_many

Prepare = Callable[..., dict[str, Any]]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Prepare a data set from files on disk; returns its manifest."""

    def run(data_set: str, source: Path | None = None, out: Path | None = None, **options: Any) -> dict[str, Any]:
        source_type = SOURCES[data_set]
        given = {
            "tokenizer": "none",
            "token_limit": 0,
            "source": str(source or ""),
            "out": str(out or tmp_path / "out"),
        }
        chosen = source_type.options_type(**(given | options))
        return Preparation(source_type(chosen), chosen, lambda stack: run_many).run()

    return run
