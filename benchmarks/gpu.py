"""What can be known only on a GPU, in one run of less than eight minutes: PyTorch and transformers, no Ray, no vLLM.

    PYTHONPATH=FOLDER:. python3 benchmarks/gpu.py --out gpu.json     # FOLDER: made by benchmarks/gpu_wheels.sh
    python benchmarks/gpu.py --device cpu --tiny                     # that it runs, in the project's environment

Prints one table and writes one file. A part that fails says so there, the others go on, and the exit status is 1. To
add a part: a function in ``benchmarks/gpu/``, and a line in ``PARTS``. docs/gpu.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from gpu import processes, report
from gpu.gradient import gradient_part
from gpu.objectives import deterministic_part, objectives_part
from gpu.parts import REAL, TINY, Bench, Part
from gpu.ratios import log_ratios_part
from gpu.speed import cut_groups_part, rows_part, whole_groups_part

PARTS = (  # those of one engine together
    Part("objectives", objectives_part),
    Part("deterministic", deterministic_part),
    Part("gradient", gradient_part),
    Part("log-ratios", log_ratios_part, zero=2),
    Part("whole-groups", whole_groups_part, zero=2),
    Part("cut-groups", cut_groups_part, zero=2),
    Part("rows", rows_part, zero=2),
    Part("whole-groups-zero-3", whole_groups_part, zero=3),
)


def main(argv: list[str] | None = None) -> int:
    """Run the parts asked for; 0 if none failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and small batches, to see that it all runs")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each update (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=480, help="after which all is ended (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu.json"), help="the file (default: %(default)s)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.device, TINY if options.tiny else REAL, Path(folder), options.rounds)
        results = processes.run([part for part in PARTS if part.name in options.parts], bench, options.seconds)
    about = report.machine(options.device)
    print(report.table(results, about))
    report.write(options.out, results, about)
    return int(any(result.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
