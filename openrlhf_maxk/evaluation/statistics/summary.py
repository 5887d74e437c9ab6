"""All numbers of one evaluation, as JSON values: for other programs, and for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from openrlhf_maxk.evaluation.statistics.bootstrap import Interval, mean_interval
from openrlhf_maxk.evaluation.statistics.diversity import distinct_at_k, solved_by, verdict_shares
from openrlhf_maxk.evaluation.statistics.estimators import FloatArray, IntArray, max_at_k
from openrlhf_maxk.evaluation.statistics.metrics import METRICS
from openrlhf_maxk.evaluation.statistics.scores import Details, Scores, shown_metrics
from openrlhf_maxk.evaluation.statistics.selection import selected_at_k

SELECTED = "best of k selected by public tests"
ORACLE = "best of k selected by hidden tests"


def summarise(scores: Scores, ks: IntArray) -> dict[str, Any]:
    """The curves of a set of problems, as a whole and for each data set and difficulty, with everything else known."""
    return {
        "k": ks.tolist(),
        "all": _part(scores, ks),
        "by_source": {name: _part(part, ks) for name, part in scores.by_source().items()},
        "by_difficulty": {name: _part(part, ks) for name, part in scores.by_difficulty().items()},
    }


def _part(scores: Scores, ks: IntArray) -> dict[str, Any]:
    part: dict[str, Any] = {
        "problems": len(scores),
        "samples": int(scores.samples.sum()),
        "unscored": int(scores.unscored.sum()),
        **{METRICS[name].label("k"): curve_values(scores.curve(name, ks)) for name in shown_metrics({"": scores})[0]},
    }
    if scores.largest_k:
        part["solved_by"] = _rounded(solved_by(scores))
    if scores.details is not None:
        part |= {name: curve_values(mean_interval(values)) for name, values in detail_curves(scores, ks).items()}
        part["verdicts"] = verdict_shares(scores.details)
        part["entropy"] = entropy_summary(scores.details)
    return part


def detail_curves(scores: Scores, ks: IntArray) -> dict[str, FloatArray]:
    """What the details of the samples add to max@k and pass@k, by name: shape (P, K), NaN where not known.

    Best of k is the share of hidden tests passed by the sample chosen: by a verifier that sees the public tests, and by
    an oracle that sees the hidden ones; ``(binary)`` is the probability that it passes all of them.
    """
    details = scores.details
    if details is None:
        return {}
    public, hidden = scores.groups(details.public), scores.groups(details.hidden)
    solved = [np.where(np.isnan(group), np.nan, group == 1.0) for group in hidden]
    return {
        SELECTED: selected_at_k(public, hidden, ks),
        ORACLE: _known(max_at_k, hidden, ks),
        f"{SELECTED} (binary)": selected_at_k(public, solved, ks),
        f"{ORACLE} (binary)": _known(max_at_k, solved, ks),
        "distinct programs": distinct_at_k(scores.groups(details.programs), ks),
        "distinct behaviours": distinct_at_k(scores.groups(details.behaviours), ks),
    }


def entropy_summary(details: Details) -> dict[str, float] | None:
    """Mean and quantiles of the samples' mean token entropy, in nats; None if it is not known."""
    known = details.entropy[~np.isnan(details.entropy)]
    if not len(known):
        return None
    names = ("5%", "25%", "50%", "75%", "95%")
    quantiles = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95])
    return {"mean": float(known.mean()), **dict(zip(names, map(float, quantiles), strict=True))}


def curve_values(interval: Interval) -> Mapping[str, list[Any]]:
    """A curve as JSON values, null where there is no value."""
    return {name: _rounded(getattr(interval, name)) for name in ("mean", "low", "high", "problems")}


def _known(estimate: Callable[..., FloatArray], groups: list, ks: IntArray) -> FloatArray:
    """An estimate for the problems without NaN, NaN for the others."""
    known = [p for p, group in enumerate(groups) if not np.isnan(group).any()]
    out = np.full((len(groups), len(ks)), np.nan)
    if known:
        out[known] = estimate([groups[p] for p in known], ks)
    return out


def _rounded(values: np.ndarray) -> list[Any]:
    if np.issubdtype(values.dtype, np.integer):
        return values.tolist()
    return [None if np.isnan(value) else round(float(value), 6) for value in values]
