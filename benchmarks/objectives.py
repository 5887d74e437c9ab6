"""Time and memory of the off-policy max@k weights, against the paper's matrix form, in one run.

    python benchmarks/objectives.py

Then, at n = 256 and k = 128, the exact weights of other strategies than the best of k, as multiples of the maximum's.

The matrix form is the computation of arXiv:2510.23393, listing 3 (w′, to first order), with its errors mended: groups
are sorted, the diagonal is a diagonal, each group is multiplied with its own matrix, and the binomials do not overflow.
It builds a few n x n matrices a group. Ours are O(n log n) to first order and O(n k) exactly, and never build one.

Threads that wait spin for a moment and then sleep, for all methods alike: on a busy machine, ones that spin on starve
each other. Methods take turns within each round, so that other load slows down all of them. Ratios are given of the
median and of the fastest times. Peak memory is by how much one call, in a fresh process, raises that process's
high-water mark.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

os.environ.setdefault("GOMP_SPINCOUNT", "100000")  # a fraction of a millisecond
warnings.filterwarnings("ignore", category=FutureWarning)

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from openrlhf_maxk.objectives import (  # noqa: E402
    exact_weights,
    first_order_weights,
    leave_one_out,
    marginal_gain,
)
from openrlhf_maxk.objectives.order import rank_shares  # noqa: E402

MATRIX = "matrix form"
METHODS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    MATRIX: lambda rewards, ratios, k: matrix_form(rewards, ratios, k),
    "first order": lambda rewards, ratios, k: first_order_weights(rewards, ratios, k, "score"),
    "exact": lambda rewards, ratios, k: exact_weights(rewards, ratios, k),
    "marginal gain, exact": lambda rewards, ratios, k: marginal_gain(rewards, k, ratios),
    "leave one out, exact": lambda rewards, ratios, k: leave_one_out(rewards, k, ratios),
}
CPU = torch.device("cpu")
STRATEGIES = ("max", "min", "mean_of_best:4", "median", "quantile:0.9", "mean_of_best:64", "mean_of_best:128")
BASELINES: dict[str, Callable[[Tensor, Tensor, int, str], Tensor]] = {
    "exact": lambda rewards, ratios, k, of: exact_weights(rewards, ratios, k, strategy=of),
    "marginal gain, exact": lambda rewards, ratios, k, of: marginal_gain(rewards, k, ratios, strategy=of),
    "leave one out, exact": lambda rewards, ratios, k, of: leave_one_out(rewards, k, ratios, strategy=of),
}
OF_STRATEGIES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    f"{of}: {baseline}": lambda rewards, ratios, k, of=of, function=function: function(rewards, ratios, k, of)
    for baseline, function in BASELINES.items()
    for of in STRATEGIES
}
MATRICES_AT_ONCE = 4
TARGETS = {"first order": 200, "exact": 25}  # times the matrix form, at n = 256


def matrix_form(rewards: Tensor, ratios: Tensor, k: int) -> Tensor:
    """w′ of (groups, n) rewards by one (n, n) matrix a group; row j, column i: what r_j counts in weight i."""
    rewards, order = rewards.sort(dim=-1, stable=True)
    deltas = ratios.gather(-1, order) - 1
    n = rewards.shape[-1]
    best, pair, triple = (subset_shares(n, k, fixed) for fixed in (1, 2, 3))
    lower = deltas.cumsum(-1) - deltas
    of_row, of_column = deltas.unsqueeze(-1), deltas.unsqueeze(-2)

    pairs = pair.repeat(n, 1).T.tril(-1)
    triples = triple.repeat(n, 1).T.tril(-1)
    below = pairs * (of_column + of_row) + triples * (lower.unsqueeze(-1) - of_column)
    diagonal = torch.diag_embed(best * deltas + pair * lower)
    weights = below + diagonal + (pairs + best.diag())
    return torch.zeros_like(rewards).scatter_(-1, order, torch.einsum("gj,gji->gi", rewards, weights))


def subset_shares(n: int, k: int, fixed: int) -> Tensor:
    """C(j − fixed, k − fixed)/C(n, k) for j = 1..n."""
    shares = math.prod((k - i) / (n - i) for i in range(fixed)) * rank_shares(n - fixed, k - fixed, (1.0,), CPU)
    return torch.nn.functional.pad(shares, (fixed - 1, 0))


def sample(groups: int, n: int) -> tuple[Tensor, Tensor]:
    """Rewards with ties, as of 16 tests, and ratios as after some PPO steps."""
    generator = torch.Generator().manual_seed(n)
    rewards = torch.randint(0, 17, (groups, n), generator=generator).double() / 16
    ratios = (0.1 * torch.randn(groups, n, generator=generator, dtype=torch.float64)).exp()
    return rewards, ratios


def times(methods: list[str], groups: int, n: int, rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of each call."""
    torch.set_num_threads(threads)
    rewards, ratios = sample(groups, n)
    k = n // 2
    if MATRIX in methods:
        mended, ours = (METHODS[name](rewards, ratios, k) for name in (MATRIX, "first order"))
        torch.testing.assert_close(mended, ours, rtol=1e-10, atol=1e-12)
        mended = METHODS[MATRIX](rewards, torch.ones_like(ratios), k)
        torch.testing.assert_close(mended, exact_weights(rewards, torch.ones_like(ratios), k), rtol=1e-10, atol=1e-12)
    return timed({name: METHODS[name] for name in methods}, rewards, ratios, k, rounds)


def strategy_times(groups: int, rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of each call, for the strategies."""
    torch.set_num_threads(threads)
    return timed(OF_STRATEGIES, *sample(groups, 256), 128, rounds)


def timed(
    methods: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]],
    rewards: Tensor,
    ratios: Tensor,
    k: int,
    rounds: int,
) -> dict[str, list[float]]:
    """Seconds of each call. Methods take turns; within a turn one is called until 0.1 s have gone by."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            end = time.perf_counter() + 0.1
            while True:
                start = time.perf_counter()
                method(rewards, ratios, k)
                seconds[name].append(time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
    return seconds


def peak(name: str, groups: int, n: int, threads: int) -> float:
    """MiB by which one call raises the high-water mark of this process."""
    torch.set_num_threads(threads)
    METHODS[name](*sample(2, 8), 4)
    rewards, ratios = sample(groups, n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    METHODS[name](rewards, ratios, n // 2)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def in_fresh_process(function: Callable, *arguments):
    """Call ``function`` in a child of this process, which itself never computes anything."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work(connection: Connection) -> None:
        connection.send(function(*arguments))

    child = context.Process(target=work, args=(sender,))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        sys.exit(f"{function.__name__}{arguments} failed")
    finally:
        child.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--groups", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--memory", type=float, default=6.0, metavar="GIB", help="the matrix form is skipped above this"
    )
    arguments = parser.parse_args()
    print(f"{arguments.groups} groups, k = n/2, float64, {arguments.threads} threads, torch {torch.__version__}\n")
    print(
        f"{'n':>5}  {'method':<22}{'median ms':>11}{'fastest ms':>12}{'x faster (median, fastest)':>30}{'peak MiB':>11}"
    )

    for n in arguments.sizes:
        needed = MATRICES_AT_ONCE * arguments.groups * n * n * 8 / 2**30
        skipped = needed > arguments.memory
        methods = [name for name in METHODS if not (skipped and name == MATRIX)]
        seconds = in_fresh_process(times, methods, arguments.groups, n, arguments.rounds, arguments.threads)
        if skipped:
            print(f"{n:>5}  {MATRIX:<22}skipped: needs about {needed:.0f} GiB, more than --memory {arguments.memory:g}")
        for name in methods:
            median, fastest = statistics.median(seconds[name]), min(seconds[name])
            ratio = ""
            if MATRIX in seconds and name != MATRIX:
                ratio = f"{statistics.median(seconds[MATRIX]) / median:.0f}, {min(seconds[MATRIX]) / fastest:.0f}"
                if n == 256 and name in TARGETS:
                    ratio += f" (target {TARGETS[name]})"
            memory = in_fresh_process(peak, name, arguments.groups, n, arguments.threads)
            print(
                f"{n:>5}  {name:<22}{1e3 * median:>11.2f}{1e3 * fastest:>12.2f}{ratio:>30}{memory:>11.1f}", flush=True
            )

    seconds = in_fresh_process(strategy_times, arguments.groups, arguments.rounds, arguments.threads)
    print(f"\n{'n = 256, k = 128':<44}{'median ms':>11}{'fastest ms':>12}{'x of max (median, fastest)':>30}")
    for name, of_name in seconds.items():
        reference = seconds[f"max:{name.rpartition(':')[2]}"]
        median, fastest = statistics.median(of_name), min(of_name)
        ratio = f"{median / statistics.median(reference):.1f}, {fastest / min(reference):.1f}"
        print(f"{name:<44}{1e3 * median:>11.2f}{1e3 * fastest:>12.2f}{ratio:>30}", flush=True)


if __name__ == "__main__":
    main()
