"""Reading what a preparation has written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openrlhf_maxk.problems.sources.source import Rejected


def reason(convert: Callable[[], Any]) -> str:
    """Why a conversion rejects its row; "" if it does not."""
    try:
        convert()
    except Rejected as rejected:
        return rejected.reason
    return ""


def dropped(out: Path) -> dict[int, tuple[str, str]]:
    """(reason, detail) of every dropped row, by its number."""
    lines = (out / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["row"]: (row["reason"], row["detail"]) for row in map(json.loads, lines)}


def contents(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def adds_up(manifest: dict[str, Any]) -> bool:
    """Whether every row is counted once, in total, by reason and by group."""
    counts = manifest["counts"]
    groups = [g for by_difficulty in counts["by_source_and_difficulty"].values() for g in by_difficulty.values()]
    return (
        counts["rows_in"]
        == counts["rows_out"] + counts["rows_dropped"]
        == sum(counts["kept"].values()) + sum(counts["dropped"].values())
        == sum(file["rows"] for file in manifest["files"])
        == sum(g["rows_in"] for g in groups)
        == sum(g["rows_out"] + sum(g["dropped"].values()) for g in groups)
    )
