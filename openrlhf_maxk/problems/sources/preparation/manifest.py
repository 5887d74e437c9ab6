"""The account of a preparation: what went in, what came out, and why everything else did not."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from openrlhf_maxk.problems.sources.reading.files import sha256
from openrlhf_maxk.problems.sources.source import SourceError

MANIFEST = "manifest.json"
SUMMARY = "summary.txt"
FORMAT = 1


class Ledger:
    """Counts rows: each once, as kept in a split or as dropped for a reason."""

    def __init__(self) -> None:
        self.kept: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.validation: Counter[str] = Counter()
        self._groups: dict[tuple[str, str], Counter[str]] = {}
        self._tokens: dict[str, list[tuple[int, int]]] = {}

    def keep(self, group: tuple[str, str], split: str, validation: str, tokens: tuple[int | None, int | None]) -> None:
        """Count a row that was kept; ``tokens`` are those of its statement and of its prompt."""
        self.kept[split] += 1
        self.validation[validation] += 1
        self._groups.setdefault(group, Counter())[""] += 1
        if tokens[0] is not None and tokens[1] is not None:
            self._tokens.setdefault(split, []).append((tokens[0], tokens[1]))

    def drop(self, group: tuple[str, str], reason: str) -> None:
        """Count a row that was dropped."""
        self.dropped[reason] += 1
        self._groups.setdefault(group, Counter())[reason] += 1

    def account(self, rows_in: int) -> dict[str, Any]:
        """The counts as the manifest has them.

        Raises:
            AssertionError: if they do not add up to the rows that were read.
        """
        rows_out, dropped = self.kept.total(), self.dropped.total()
        by_group = sum(counter.total() for counter in self._groups.values())
        assert rows_in == rows_out + dropped == by_group, (rows_in, rows_out, dropped, by_group)
        groups: dict[str, dict[str, Any]] = {}
        for (source, difficulty), counter in sorted(self._groups.items()):
            groups.setdefault(source, {})[difficulty] = {
                "rows_in": counter.total(),
                "rows_out": counter[""],
                "dropped": {reason: count for reason, count in sorted(counter.items()) if reason},
            }
        return {
            "rows_in": rows_in,
            "rows_out": rows_out,
            "rows_dropped": dropped,
            "kept": dict(sorted(self.kept.items())),
            "dropped": dict(sorted(self.dropped.items())),
            "by_source_and_difficulty": groups,
            "validation": dict(sorted(self.validation.items())),
            "tokens": {
                split: {
                    "statement": _spread([s for s, _ in counts]),
                    "prompt": _spread([p for _, p in counts]),
                }
                for split, counts in sorted(self._tokens.items())
            },
        }


def _spread(counts: Sequence[int]) -> dict[str, float]:
    ordered = sorted(counts)
    return {
        "least": ordered[0],
        "median": median(ordered),
        "p90": ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))],
        "greatest": ordered[-1],
        "total": sum(ordered),
    }


def written_identity(identity: Mapping[str, Any]) -> str:
    """A short name of everything that decides what is written."""
    decisive = {name: value for name, value in identity.items() if name != "asked_revision"}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def describe_files(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Size and hash of every file that was written."""
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in sorted(names)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        SourceError: if there is none.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise SourceError(f"{folder} is not a prepared folder (no readable {MANIFEST}: {type(e).__name__})") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise SourceError(f"{folder / MANIFEST} was written by another version: prepare the folder again")
    return found


def summary(manifest: Mapping[str, Any]) -> str:
    """The account in words and columns."""
    counts = manifest["counts"]
    lines = [
        f"{manifest['data_set']}  revision {manifest['revision']}",
        *(f"  {f['name']}: {f['rows']:,} rows" for f in manifest["files"]),
        "",
        f"{counts['rows_in']:>9,} rows read",
        *(
            f"{-n:>9,} {reason}"
            for reason, n in sorted(counts["dropped"].items(), key=lambda item: (-item[1], item[0]))
        ),
        f"{counts['rows_out']:>9,} problems kept: "
        + (", ".join(f"{n:,} {s}" for s, n in counts["kept"].items()) or "none"),
        "",
        f"{'source':<20} {'difficulty':<12} {'read':>8} {'kept':>8}  dropped most for",
    ]
    for source, difficulties in counts["by_source_and_difficulty"].items():
        for difficulty, group in difficulties.items():
            most = max(group["dropped"].items(), key=lambda item: item[1], default=None)
            why = f"{most[0]} ({most[1]:,})" if most else ""
            lines.append(
                f"{source:<20} {difficulty:<12} {group['rows_in']:>8,} {group['rows_out']:>8,}  {why}".rstrip()
            )
    lines += ["", "validation: " + (", ".join(f"{n:,} {name}" for name, n in counts["validation"].items()) or "none")]
    for split, tokens in counts["tokens"].items():
        p = tokens["prompt"]
        lines.append(
            f"prompt tokens, {split}: {p['least']} to {p['greatest']}, median {p['median']:g}, 90 % within {p['p90']}"
        )
    lines += [f"warning: {warning}" for warning in manifest["warnings"]]
    return "\n".join(lines) + "\n"
