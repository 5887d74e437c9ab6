"""``python -m openrlhf_maxk.cli.mini --out DIR``: the embedded benchmark and its base model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)

    from openrlhf_maxk.problems.mini.base_model import ModelSettings
    from openrlhf_maxk.problems.mini.generator import ProblemSettings
    from openrlhf_maxk.problems.mini.prepare import prepare

    problems = ProblemSettings(options.seed, options.train_problems, options.validation_problems, options.test_problems)
    model = replace(ModelSettings(), seed=options.seed, steps=options.steps, batch=options.batch)
    start = time.perf_counter()
    manifest = prepare(options.out, problems, model, options.threads)
    counts = manifest["problems"]["counts"]
    base = manifest["base_model"]
    print(f"problems    {options.out / 'problems'}: " + ", ".join(f"{n} {split}" for split, n in counts.items()))
    print(
        f"base model  {options.out / 'base_model'}: {base['parameters']:,} parameters, "
        f"loss {base['first_loss']:.2f} -> {base['last_loss']:.2f}, trained in {base['wall_seconds']:.0f} s"
    )
    print(f"done in {time.perf_counter() - start:.0f} s; summary in {options.out / 'manifest.json'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.cli.mini", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; what it holds already is kept")
    parser.add_argument("--seed", type=int, default=0, help="of problems, demonstrations and base model")
    parser.add_argument("--train-problems", type=_positive, default=2000)
    parser.add_argument("--validation-problems", type=_positive, default=96)
    parser.add_argument("--test-problems", type=_positive, default=256, help="held-out problems")
    parser.add_argument("--steps", type=_positive, default=500, help="training steps of the base model")
    parser.add_argument("--batch", type=_positive, default=128, help="demonstrations a step")
    parser.add_argument("--threads", type=_positive, help="CPU threads for the base model (all cores)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


if __name__ == "__main__":
    sys.exit(main())
