"""Our PPO update against upstream's, in turn, on one engine: tokens a second and peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .parts import Bench, Record


def whole_groups_part(bench: Bench) -> Iterator[Record]:
    """A group a micro-batch: the off-policy correction costs no pass."""
    yield from _updates(bench, bench.sizes.n, UPSTREAM, OURS)


def cut_groups_part(bench: Bench) -> Iterator[Record]:
    """Groups larger than a micro-batch: one more pass in every optimizer step but the first."""
    yield from _updates(bench, bench.sizes.cut_n, UPSTREAM, OURS)


def rows_part(bench: Bench) -> Iterator[Record]:
    """Our learner on groups as rows and on the padded batches of upstream, and whether both say the same."""
    yield from _updates(bench, bench.sizes.n, ("padded", "ours", False), ("as rows", "ours", True))
    assert bench.learners is not None
    verdict = bench.learners.verdicts[True]
    yield Record("log-probs of rows and padded batches", {"said": verdict.reason}, "" if verdict.agree else "differ")


# What a learner is called, which it is, and whether it computes groups as rows.
UPSTREAM, OURS = ("upstream, group_norm", "upstream", False), ("ours, offpolicy_bon", "ours", True)


def _updates(bench: Bench, n: int, *learned: tuple[str, str, bool]) -> Iterator[Record]:
    from learners import Rollout, alternate

    learners, sizes = bench.learners, bench.sizes
    assert learners is not None
    learners.args.rollout.n_samples_per_prompt = n
    rollout = Rollout(
        sizes.rows // n, n, sizes.prompt, sizes.shortest, sizes.longest, vocabulary=sizes.model["vocab_size"]
    )
    tokens = learners.args.train.max_epochs * _tokens(rollout)
    trainers = {name: (getattr(learners, which), rows) for name, which, rows in learned}
    peaks = dict.fromkeys(trainers, 0)

    def update(name: str) -> float:
        trainer, rows = trainers[name]
        seconds, peak = measured(
            lambda timed: learners.update(trainer, rollout, timed, rows), on_gpu=bench.device == "cuda"
        )
        peaks[name] = max(peaks[name], peak)
        return seconds

    first, second = trainers
    times = alternate(lambda: update(first), lambda: update(second), bench.rounds)
    case = f"n = {n}, micro-batches of {sizes.micro}"
    for name, seconds in zip(trainers, times, strict=True):
        rates = [tokens / each for each in seconds]
        figures: dict[str, Any] = {"tokens/s": statistics.median(rates), "slowest": min(rates), "fastest": max(rates)}
        if bench.device == "cuda":
            figures["peak GiB"] = peaks[name] / 2**30
        yield Record(f"{name}, {case}", {**figures, "seconds": seconds})
    ratios = sorted(ours / theirs for theirs, ours in zip(*times, strict=True))
    yield Record(
        f"seconds of {second} over {first}, {case}",
        {"median": statistics.median(ratios), "smallest": ratios[0], "largest": ratios[-1]},
    )


def measured(run: Callable[[Callable[[Callable[[], Any]], float]], float], on_gpu: bool) -> tuple[float, int]:
    """Seconds of what ``run`` hands to the function that it gets, and the peak of the GPU's memory in it, in bytes."""
    peak = 0

    def timed(action: Callable[[], Any]) -> float:
        nonlocal peak
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        started = time.perf_counter()
        action()
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        peak = torch.cuda.max_memory_allocated() if on_gpu else 0
        return seconds

    return run(timed), peak


def _tokens(rollout: Any) -> int:
    """Prompt and completion tokens, without padding."""
    from learners import random_rows

    return int(random_rows(rollout)[2].sum())
