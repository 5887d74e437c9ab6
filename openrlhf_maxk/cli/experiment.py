"""``python -m openrlhf_maxk.cli.experiment PLAN.yaml --out DIR``: many training runs, compared over seeds.

Every run of the plan is trained and evaluated for every model and seed, one after the other. What is done stays done:
the same command goes on where it was stopped. DIR gets results.md, results.csv and figures/, made anew after each run.
docs/experiment.md tells what a plan holds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openrlhf_maxk.cli.common import positive, reason

if TYPE_CHECKING:
    from openrlhf_maxk.experiment.plan import Plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for a run that failed, 2 for a plan that cannot be carried out."""
    options = build_parser().parse_args(arguments)

    from openrlhf_maxk.evaluation.samples.run_folder import RunFolderError
    from openrlhf_maxk.experiment.packing import pack
    from openrlhf_maxk.experiment.plan import PlanError, read_plan
    from openrlhf_maxk.experiment.running import RESULTS, JobFailed, carry_out

    try:
        plan = read_plan(options.plan)

        def say(line: str) -> None:
            print(line, flush=True)
            _write(plan, options.out, options.k)

        if options.pack:
            count = pack(plan, options.out, options.pack)
            print(f"{count} jobs: what their results are made from is in {options.pack}")
            return 0
        if options.results:
            say("only the results of what is done")
        else:
            _check(plan, options.out)
            carry_out(plan, options.out, say)
    except (PlanError, Refused, RunFolderError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except JobFailed as error:
        print(f"error: {error}\nMend that and run the same command: what is done is kept", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    if not (options.out / RESULTS).is_file():
        print(f"nothing in {options.out} is done yet")
        return 0
    print(f"saved in {options.out}: {RESULTS}, results.csv, figures/")
    return 0


class Refused(Exception):
    """Options of a run that :mod:`openrlhf_maxk.cli.train` does not take."""


def _check(plan: Plan, out: Path) -> None:
    """Raises Refused before anything runs if some run of the plan would be refused."""
    from openrlhf_maxk.cli import train
    from openrlhf_maxk.experiment.plan import BASE, train_arguments

    for job in plan.jobs():
        if job.run == BASE or job.seed != plan.seeds[0]:
            continue
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                train.parse(train_arguments(plan, job, out / job.folder))
        except SystemExit:
            raise Refused(f"runs.{job.run}: {said.getvalue().strip().removeprefix('error: ')}") from None


def _write(plan: Plan, out: Path, ks: Sequence[int] | None) -> None:
    """The results of what is done, in place of those before."""
    from openrlhf_maxk.evaluation.reports.formats import csv_text
    from openrlhf_maxk.experiment import curves
    from openrlhf_maxk.experiment.figure import plot
    from openrlhf_maxk.experiment.results import Value, load, markdown, values
    from openrlhf_maxk.experiment.running import RESULTS
    from openrlhf_maxk.problems.atomic import write_text

    found = values(plan, load(plan, out), ks)
    if not found:
        return
    shown = sorted({value.k for value in found})
    known = dict.fromkeys(value.metric for value in found)
    metrics = [metric for metric in plan.metrics or known if metric in known]
    trained = curves.load(plan, out)
    write_text(out / RESULTS, markdown(plan, found, metrics, shown) + curves.markdown(plan, trained))
    head = [field.name for field in dataclasses.fields(Value)]
    write_text(out / "results.csv", csv_text(head, [list(vars(value).values()) for value in found]))
    for model in plan.models:
        plot(found, model, metrics, out / "figures" / f"{model}.png")
        curves.plot(trained, model, out / "figures" / f"{model} training.png")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.cli.experiment", description=__doc__)
    parser.add_argument("plan", type=Path, metavar="PLAN.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment")
    parser.add_argument("--k", type=positive, nargs="+", help="values of k to report (powers of two)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--results", action="store_true", help="run nothing: only write the results of what is done")
    instead.add_argument(
        "--pack", type=Path, metavar="DIR", help="run nothing: copy what results are made from, some kilobytes a job"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
