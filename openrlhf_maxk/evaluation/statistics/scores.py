"""What an evaluation knows about the samples of a set of problems, ready for estimation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from openrlhf_maxk.evaluation.statistics.bootstrap import Interval, mean_interval
from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, IntArray, checked_ks, powers_of_two
from openrlhf_maxk.evaluation.statistics.metrics import METRICS, UNKNOWN, Columns, metric_named

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Details:
    """What is known about each sample besides its reward; S samples in the order of ``Scores.rewards``."""

    indices: IntArray  # (S,) the sample's number within its problem
    public: FloatArray  # (S,) share of the public tests passed; NaN without public tests
    hidden: FloatArray  # (S,) share of the other tests passed; NaN without other tests
    programs: IntArray  # (S,) equal numbers mean the same program text, within a problem; -1: there is no program
    behaviours: IntArray  # (S,) equal numbers mean the same verdicts and outputs, within a problem; -1: no program
    answers: IntArray  # (S,) equal numbers mean equal answers, within a problem; -1: no answer, -2: not known
    verdicts: IntArray  # (S, V) how many tests ended in each verdict, in the order of ``Verdict``
    entropy: FloatArray  # (S,) mean token entropy of the policy in nats; NaN if not known
    tokens: IntArray  # (S,) length of the completion; -1 if not known

    def rows(self, index: npt.NDArray) -> Details:
        """The samples that ``index`` (integers or booleans) chooses."""
        return Details(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, eq=False)
class Scores:
    """The rewards of the samples of P problems; group sizes may differ.

    Samples lie one after the other, problem by problem: those of problem p are ``offsets[p]:offsets[p + 1]``. A sample
    that could not be executed is not among them; it is counted in ``unscored``.
    """

    ids: tuple[str, ...]  # (P,) problem ids
    sources: tuple[str, ...]  # (P,) the data set of each problem
    difficulties: tuple[str, ...]  # (P,) as the source grades it; may be ""
    offsets: IntArray  # (P + 1,)
    rewards: FloatArray  # (S,) continuous: the share of tests passed
    correct: BoolArray  # (S,) binary: all tests passed
    unscored: IntArray  # (P,)
    details: Details | None = None
    _estimates: dict[tuple[str, tuple[int, ...]], FloatArray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        problems, samples = len(self.ids), len(self.rewards)
        if len(set(self.ids)) != problems:
            raise ValueError("a problem occurs twice: ids must be unique")
        sizes = {"sources": len(self.sources), "difficulties": len(self.difficulties), "unscored": len(self.unscored)}
        for name, size in sizes.items():
            if size != problems:
                raise ValueError(f"{name} has {size} entries for {problems} problems")
        if len(self.offsets) != problems + 1 or self.offsets[-1] != samples or len(self.correct) != samples:
            raise ValueError("offsets, rewards and correct do not describe the same samples")

    @classmethod
    def from_groups(
        cls,
        rewards: Mapping[str, Sequence[float] | npt.NDArray],
        *,
        sources: Mapping[str, str] | None = None,
        difficulties: Mapping[str, str] | None = None,
        unscored: Mapping[str, int] | None = None,
        solved_at: float = 1.0,
    ) -> Scores:
        """Scores from the rewards of each problem's samples, by problem id; ``solved_at`` or more counts as correct."""
        groups = [np.asarray(group, dtype=np.float64).reshape(-1) for group in rewards.values()]
        flat = np.concatenate([*groups, np.empty(0)])
        return cls(
            ids=tuple(rewards),
            sources=tuple((sources or {}).get(i, "") for i in rewards),
            difficulties=tuple((difficulties or {}).get(i, "") for i in rewards),
            offsets=offsets_of([len(group) for group in groups]),
            rewards=flat,
            correct=flat >= solved_at,
            unscored=np.asarray([(unscored or {}).get(i, 0) for i in rewards], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def samples(self) -> IntArray:
        """How many scored samples each problem has, shape (P,)."""
        return np.diff(self.offsets)

    @property
    def correct_counts(self) -> IntArray:
        """How many samples of each problem pass all tests, shape (P,)."""
        return sums(self.correct, self.offsets)

    @property
    def largest_k(self) -> int:
        """The largest k that every problem has samples for; 0 if some problem has none."""
        return int(self.samples.min(initial=np.iinfo(np.int64).max)) if len(self) else 0

    def groups(self, column: npt.NDArray) -> list[npt.NDArray]:
        """Any per-sample column, cut into one array a problem."""
        return np.split(column, self.offsets[1:-1]) if len(self) else []

    def columns(self) -> Columns:
        """What the metrics look at."""
        samples = len(self.rewards)
        public = np.full(samples, np.nan) if self.details is None else self.details.public
        answers = np.full(samples, UNKNOWN) if self.details is None else self.details.answers
        return Columns(*map(self.groups, (self.rewards, self.correct, public, answers)))

    def estimates(self, metric: str, ks: npt.ArrayLike) -> FloatArray:
        """A metric (:data:`.metrics.METRICS`) of each problem, shape (P, K); NaN where k exceeds its samples, or where
        it needs what is not known of them. Computed once."""
        ks = checked_ks(ks)
        key = metric, tuple(ks.tolist())
        if key not in self._estimates:
            self._estimates[key] = metric_named(metric).estimate(self.columns(), ks)
        return self._estimates[key]

    def knows(self, metric: str) -> bool:
        """Whether there is a value of the metric for some problem."""
        return not np.isnan(self.estimates(metric, [1])).all()

    def curve(self, metric: str, ks: npt.ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Interval:
        """The mean over problems for each k with its confidence interval."""
        return mean_interval(self.estimates(metric, ks), confidence=confidence, seed=seed)

    def take(self, problems: npt.ArrayLike) -> Scores:
        """Some of the problems, by position, in the order given."""
        chosen = np.asarray(problems, dtype=np.int64)
        rows = np.concatenate([np.arange(self.offsets[p], self.offsets[p + 1]) for p in chosen] + [np.empty(0, int)])
        taken = replace(
            self,
            ids=tuple(self.ids[p] for p in chosen),
            sources=tuple(self.sources[p] for p in chosen),
            difficulties=tuple(self.difficulties[p] for p in chosen),
            offsets=offsets_of(self.samples[chosen]),
            rewards=self.rewards[rows],
            correct=self.correct[rows],
            unscored=self.unscored[chosen],
            details=None if self.details is None else self.details.rows(rows),
        )
        taken._estimates.update({key: values[chosen] for key, values in self._estimates.items()})
        return taken

    def by_source(self) -> dict[str, Scores]:
        """The problems of each data set, in order of first appearance."""
        return self._split(self.sources)

    def by_difficulty(self) -> dict[str, Scores]:
        """The problems of each difficulty, in the order of :func:`difficulty_key`."""
        return dict(sorted(self._split(self.difficulties).items(), key=lambda item: difficulty_key(item[0])))

    def _split(self, labels: Sequence[str]) -> dict[str, Scores]:
        positions: dict[str, list[int]] = {}
        for p, label in enumerate(labels):
            positions.setdefault(label, []).append(p)
        return {label: self.take(of_label) for label, of_label in positions.items()}


def paired(evaluations: Mapping[str, Scores]) -> dict[str, Scores]:
    """The problems that all evaluations share, in the first one's order, so that row p is one problem everywhere.

    Raises:
        ValueError: there is no common problem.
    """
    common = set.intersection(*(set(scores.ids) for scores in evaluations.values())) if evaluations else set()
    if not common:
        raise ValueError(f"{' and '.join(evaluations) or 'no evaluation'}: no problem in common, nothing can be paired")
    first = next(iter(evaluations.values()))
    order = [problem for problem in first.ids if problem in common]
    result = {}
    for name, scores in evaluations.items():
        position = {problem: p for p, problem in enumerate(scores.ids)}
        result[name] = scores.take([position[problem] for problem in order])
    return result


def shown_ks(evaluations: Mapping[str, Scores], ks: npt.ArrayLike | None = None) -> IntArray:
    """The values of k to report: those given, or the powers of two that every problem of each evaluation allows."""
    largest = min((scores.largest_k for scores in evaluations.values()), default=0)
    if ks is None:
        if largest < 1:
            raise ValueError("some problem has no scored sample: there is no k that all problems allow")
        return powers_of_two(largest)
    chosen = np.atleast_1d(np.asarray(ks, dtype=np.int64))
    most = min((int(scores.samples.max(initial=0)) for scores in evaluations.values()), default=0)
    if np.any(chosen > most):
        raise ValueError(f"k = {chosen[chosen > most][0]} needs that many samples of a problem; there are {most}")
    return chosen


def shown_metrics(evaluations: Mapping[str, Scores]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics that all evaluations know, and a sentence for each that is left out."""
    shown, left_out = [], []
    for name, metric in METRICS.items():
        lacking = [who for who, scores in evaluations.items() if not scores.knows(name)]
        if not lacking:
            shown.append(name)
        else:
            whose = "" if len(lacking) == len(evaluations) else f" of {', '.join(lacking)}"
            left_out.append(f"{metric.label('k')} is left out: no {metric.needs or 'samples'}{whose} are known")
    return tuple(shown), tuple(left_out)


def offsets_of(sizes: npt.ArrayLike) -> IntArray:
    """Where each group begins when groups of these sizes lie one after the other; shape (P + 1,)."""
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.int64))]).astype(np.int64)


def sums(column: npt.NDArray, offsets: IntArray) -> npt.NDArray:
    """The sum of a per-sample column over each problem, empty problems included."""
    total = np.concatenate([[0], np.cumsum(column)])
    return total[offsets[1:]] - total[offsets[:-1]]


def difficulty_key(label: str) -> tuple[int, tuple[tuple[int, int, str], ...]]:
    """Sorts difficulties: easy, medium and hard as they are meant, whatever their case, others as names behind them."""
    named = ("easy", "medium", "hard")
    return named.index(label.lower()) if label.lower() in named else len(named), natural_key(label)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts numbers inside names by size: "2" before "10"."""
    parts: list[tuple[int, int, str]] = []
    digits = ""
    for character in text + "\0":
        if character.isdecimal() and character.isascii():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits), ""))
            digits = ""
        parts.append((1, 0, character))
    return tuple(parts)
