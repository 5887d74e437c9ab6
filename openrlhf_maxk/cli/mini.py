"""Make an embedded benchmark and its base model: ``python -m openrlhf_maxk.cli.mini --out DIR``.

``--benchmark programs`` (the default) is about short programs, ``words`` about word problems with an answer in a box.
``shortcuts`` has the problems of ``programs``, and a base model that often prints the shown output whatever the input.
What DIR holds already is kept if it was made with the same options by the same code. docs/mini.md tells what is in it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrlhf_maxk import platform
from openrlhf_maxk.cli.common import positive


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 for a folder that is complete, 1 for an error, 2 for wrong options."""
    options = _parser().parse_args(arguments)
    os.environ.update(platform.environment())

    from openrlhf_maxk.problems.mini.base_model import ModelSettings
    from openrlhf_maxk.problems.mini.benchmarks import BENCHMARKS
    from openrlhf_maxk.problems.mini.prepare import prepare
    from openrlhf_maxk.problems.mini.splits import ProblemSettings

    problems = ProblemSettings(options.seed, options.train_problems, options.validation_problems, options.test_problems)
    model = ModelSettings(options.seed, options.steps, options.batch)
    try:
        manifest = prepare(options.out, problems, model, options.threads, BENCHMARKS[options.benchmark])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{where}. What is complete is kept: run again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; what is complete is kept", file=sys.stderr)
        return 130
    print(_summary(options.out, manifest))
    return 0


def _summary(out: Path, manifest: Mapping[str, Any]) -> str:
    counts, base = manifest["problems"]["counts"], manifest["base_model"]
    return (
        f"{out / 'problems'}: {counts['train']} training, {counts['validation']} validation, "
        f"{counts['test']} held-out problems\n"
        f"{out / 'base_model'}: {base['parameters']:,} parameters, loss {base['first_loss']:.2f} to "
        f"{base['last_loss']:.2f} nats a token after {base['settings']['steps']} steps "
        f"({base['wall_seconds']:.0f} s, {base['cpu_seconds']:.0f} s of CPU)"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.cli.mini", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--benchmark", choices=("programs", "shortcuts", "words"), default="programs", help="default: programs"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the problems and of the base model (default: 0)")
    for name, default, text in (
        ("--train-problems", 2000, "training problems"),
        ("--validation-problems", 96, "validation problems"),
        ("--test-problems", 256, "held-out problems"),
        ("--steps", 400, "training steps of the base model"),
        ("--batch", 64, "demonstrations a step"),
    ):
        parser.add_argument(name, type=positive, default=default, metavar="N", help=f"{text} (default: {default})")
    parser.add_argument("--threads", type=positive, metavar="N", help="for the base model (default: all cores)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
