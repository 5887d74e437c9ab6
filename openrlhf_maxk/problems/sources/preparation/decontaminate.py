"""Finding statements that are the same, or nearly: by a hash of all words, and by the share of common word n-grams.

Two data sets write formulas and numbers differently, so n-grams are of words of two letters or more. N-grams of many
problems ("the first line of the input contains …") say nothing and are left out. What is left, the share of the smaller
statement's n-grams that the other has as well, is 1 for a copy and near 0 for two different problems.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openrlhf_maxk.problems.sources.source import SourceError

COMMON = 20  # problems that share an n-gram before it says nothing
FEWEST = 4  # n-grams of a statement below which only the hash decides
FINGERPRINTS = "fingerprints.parquet"

COMMAND = re.compile(r"\\[a-zA-Z]+")  # of LaTeX
TOKEN = re.compile(r"[^\W_]+")
WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Fingerprint:
    """What a statement is recognised by."""

    digest: str  # of all its words and numbers, in order
    ngrams: np.ndarray  # uint64, sorted, without repeats
    names: tuple[str, ...] = ()  # e.g. "codeforces:1575/A"


@dataclass(frozen=True)
class Match:
    """A problem that a statement is the same as."""

    position: int  # in the index
    share: float  # of common n-grams; 1 for the same hash or name


def fingerprint(statement: str, ngram: int, names: Iterable[str] = ()) -> Fingerprint:
    """The fingerprint of a statement.

    Args:
        ngram: words of an n-gram.
    """
    text = COMMAND.sub(" ", unicodedata.normalize("NFKC", statement)).lower()
    tokens, words = TOKEN.findall(text), WORD.findall(text)
    hashes = {_hash(" ".join(words[i : i + ngram])) for i in range(len(words) - ngram + 1)}
    digest = hashlib.sha256(" ".join(tokens).encode()).hexdigest() if tokens else ""
    return Fingerprint(digest, np.array(sorted(hashes), dtype=np.uint64), tuple(names))


class Index:
    """Fingerprints to look others up in.

    Args:
        overlap: share of common n-grams from which two statements are near-duplicates; 0: only hashes and names count.
    """

    def __init__(self, fingerprints: Sequence[Fingerprint], overlap: float) -> None:
        self.overlap = overlap
        self._by_digest: dict[str, int] = {}
        self._by_name: dict[str, int] = {}
        for position, known in enumerate(fingerprints):
            if known.digest:
                self._by_digest.setdefault(known.digest, position)
            for name in known.names:
                self._by_name.setdefault(name, position)
        owners = np.repeat(np.arange(len(fingerprints)), [len(f.ngrams) for f in fingerprints])
        ngrams = np.concatenate([f.ngrams for f in fingerprints]) if fingerprints else np.empty(0, np.uint64)
        order = np.argsort(ngrams, kind="stable")
        ngrams, owners = ngrams[order], owners[order]
        distinct, counts = np.unique(ngrams, return_counts=True)
        self._common = distinct[counts > COMMON]
        telling = np.isin(ngrams, self._common, invert=True)
        self._ngrams, self._owners = ngrams[telling], owners[telling]
        self._sizes = np.bincount(self._owners, minlength=len(fingerprints))

    def find(self, statement: Fingerprint, before: int | None = None) -> Match | None:
        """The closest known problem that this is a duplicate of, None if there is none.

        Args:
            before: only problems at smaller positions count.
        """
        matches = self.find_all(statement, before)
        return max(matches, key=lambda m: (m.share, -m.position), default=None)

    def find_all(self, statement: Fingerprint, before: int | None = None) -> list[Match]:
        """Every known problem that this is a duplicate of (of those with one hash or name, the first)."""
        found = {self._by_name[name]: 1.0 for name in statement.names if name in self._by_name}
        if statement.digest in self._by_digest:
            found[self._by_digest[statement.digest]] = 1.0
        if self.overlap:
            for position, share in self._overlapping(statement.ngrams):
                found.setdefault(position, share)
        return [Match(p, share) for p, share in sorted(found.items()) if before is None or p < before]

    def _overlapping(self, ngrams: np.ndarray) -> Iterable[tuple[int, float]]:
        ngrams = ngrams[np.isin(ngrams, self._common, invert=True)]
        if len(ngrams) < FEWEST or not len(self._ngrams):
            return
        first, last = np.searchsorted(self._ngrams, ngrams), np.searchsorted(self._ngrams, ngrams, side="right")
        hits = np.concatenate([self._owners[a:b] for a, b in zip(first, last, strict=True)])
        owners, shared = np.unique(hits, return_counts=True)
        for owner, count in zip(owners.tolist(), shared.tolist(), strict=True):
            smaller = min(len(ngrams), int(self._sizes[owner]))
            if smaller >= FEWEST and count >= self.overlap * smaller:
                yield owner, count / smaller


@dataclass(frozen=True)
class Contaminant:
    """A prepared folder whose problems must not occur in another."""

    data_set: str
    manifest: str  # SHA-256
    ids: list[str]
    index: Index


def repeats(fingerprints: Sequence[Fingerprint], overlap: float) -> dict[int, int]:
    """Problems that repeat an earlier one that stays: position to the position of that one."""
    index = Index(fingerprints, overlap)
    first: dict[str, int] = {}  # hash or name to the first problem with it
    dropped: dict[int, int] = {}
    for position, statement in enumerate(fingerprints):
        keys = [*statement.names, statement.digest] if statement.digest else [*statement.names]
        earlier = [first[key] for key in keys if key in first]
        if overlap:
            earlier += [m.position for m in index.find_all(statement, position) if m.position not in dropped]
        if earlier:
            dropped[position] = min(earlier)
            continue
        for key in keys:
            first.setdefault(key, position)
    return dropped


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("kept", pa.bool_()),
        ("digest", pa.string()),
        ("names", pa.list_(pa.string())),
        ("ngrams", pa.list_(pa.uint64())),
    ]
)


def write_fingerprints(folder: Path, rows: Iterable[tuple[str, bool, Fingerprint]]) -> None:
    """Write (id, kept, fingerprint) of every problem of a source beside the prepared data."""
    with pq.ParquetWriter(folder / FINGERPRINTS, SCHEMA, compression="zstd") as writer:
        batch: list[dict[str, object]] = []
        for identifier, kept, f in rows:
            batch.append({"id": identifier, "kept": kept, "digest": f.digest, "names": f.names, "ngrams": f.ngrams})
            if len(batch) == 1024:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch.clear()
        writer.write_table(pa.Table.from_pylist(batch, SCHEMA))


def read_fingerprints(folder: Path, against: str) -> tuple[list[str], list[Fingerprint]]:
    """(ids, fingerprints) of a prepared folder.

    Args:
        against: "all" for every problem its source has, "kept" for those that were kept.
    Raises:
        SourceError: if it has none.
    """
    try:
        table = pq.read_table(folder / FINGERPRINTS)
        rows = [row for row in table.to_pylist() if against == "all" or row["kept"]]
        prints = [Fingerprint(r["digest"], np.array(r["ngrams"], np.uint64), tuple(r["names"])) for r in rows]
        return [row["id"] for row in rows], prints
    except (OSError, pa.ArrowException, KeyError) as e:
        raise SourceError(f"--decontaminate {folder}: no readable {FINGERPRINTS} ({e}): prepare it again") from None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
