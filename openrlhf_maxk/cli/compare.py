"""``python -m openrlhf_maxk.cli.compare BEFORE AFTER ... --out DIR``: evaluations side by side.

Each argument is a folder that ``openrlhf_maxk.cli.evaluate`` wrote (the latest evaluation in it is taken), or
NAME=FOLDER. The first is the baseline. Writes tables (Markdown, LaTeX, CSV), figures and one HTML page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openrlhf_maxk.cli.common import positive, reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for an error, 2 for wrong options."""
    options = build_parser().parse_args(arguments)

    from openrlhf_maxk.evaluation.reports.paper import DATA_SETS, known_data_set
    from openrlhf_maxk.evaluation.reports.report import REPORT, write_comparison
    from openrlhf_maxk.evaluation.reports.tables import print_tables
    from openrlhf_maxk.evaluation.samples.log import LogError
    from openrlhf_maxk.evaluation.samples.run_folder import RunFolderError
    from openrlhf_maxk.evaluation.scoring.loading import load_evaluations

    ks = None if options.k is None else np.asarray(sorted(set(options.k)), dtype=np.int64)
    try:
        evaluations = load_evaluations(options.evaluations)
        write_comparison(evaluations, options.out, ks, paper=options.paper)
    except (RunFolderError, LogError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 1
    if len({evaluation.settings["settings"]["problems"] for evaluation in evaluations.values()}) > 1:
        print(
            "note: the evaluations differ in problems, tests or prompts; problems of the same id are compared",
            file=sys.stderr,
        )
    sources = {source for evaluation in evaluations.values() for source in evaluation.scores.sources}
    if options.paper and not any(map(known_data_set, sources)):
        print(f"note: --paper has nothing to show: the paper's data sets are {', '.join(DATA_SETS)}", file=sys.stderr)
    print_tables({name: evaluation.scores for name, evaluation in evaluations.items()}, ks)
    print(f"saved in {options.out}: {REPORT}, tables.md, tables.tex, comparisons.csv, curves.csv, figures/")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.cli.compare", description=__doc__)
    parser.add_argument("evaluations", nargs="+", metavar="[NAME=]FOLDER")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--k", type=positive, nargs="+", help="values of k to report (powers of two)")
    parser.add_argument("--paper", action="store_true", help="put the paper's numbers beside those of its data sets")
    return parser


if __name__ == "__main__":
    sys.exit(main())
