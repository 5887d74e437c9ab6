"""Prepare a data set: ``python -m openrlhf_maxk.cli.prepare DATA_SET --out DIR [--source FILES] …``.

Fetches or reads the original files, turns their rows into problems, runs the reference solutions, and writes a folder
with the problems, prompts for OpenRLHF and an account of every row. docs/data.md tells what is in it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from openrlhf_maxk.problems.sources import SOURCES
from openrlhf_maxk.problems.sources.options import PrepareOptions, add_options, read_options
from openrlhf_maxk.problems.sources.preparation.manifest import summary
from openrlhf_maxk.problems.sources.preparation.pipeline import Preparation
from openrlhf_maxk.problems.sources.preparation.validate import RunMany
from openrlhf_maxk.problems.sources.source import SourceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 for a folder that is complete, 1 for an error, 2 for wrong options."""
    parser = build_parser()
    namespace = parser.parse_args(arguments)
    source_type = namespace.source_type
    if place := getattr(namespace, "place", ""):
        vars(namespace).update(source_type.options_type.located(place))
    try:
        options = read_options(namespace, source_type.options_type)
    except ValueError as e:
        parser.exit(2, f"error: {e}\n")
    bar = tqdm(desc=namespace.data_set, unit=" rows", file=sys.stderr, mininterval=1.0, delay=1.0, dynamic_ncols=True)

    def progress(rows: int) -> None:
        bar.update(rows - bar.n)

    try:
        with bar:
            manifest = Preparation(source_type(options), options, runner(options), progress).run()
    except SourceError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except OSError as e:
        where = e.filename or f"writing {options.out}"
        print(f"error: {e.strerror or e} ({where}). Mend that and run the command again: it goes on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(summary(manifest), end="")
    print(f"written to {Path(options.out)}")
    return 0


def runner(options: PrepareOptions) -> Callable[[ExitStack], RunMany]:
    """A function that starts the project's executor, which runs programs on all cores until its stack is closed."""

    def start(stack: ExitStack) -> RunMany:
        from openrlhf_maxk.rewards.execution.executor import Executor
        from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError

        try:
            executor = Executor(cores=options.cores or None, unsafe=options.unsafe)
        except SandboxUnavailableError as e:
            raise SourceError(f"{e} Here that is --unsafe; --no-validate runs none") from None
        return stack.enter_context(executor).run_many

    return start


def build_parser() -> argparse.ArgumentParser:
    """The command line: one sub-command a data set."""
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.cli.prepare", description=__doc__)
    commands = parser.add_subparsers(dest="data_set", required=True, metavar="DATA_SET")
    for name, source_type in SOURCES.items():
        doc = (sys.modules[source_type.__module__].__doc__ or "").split("\n")[0]
        usage = f"{parser.prog} {name} --out DIR [--source FILES] [options]"
        command = commands.add_parser(name, aliases=source_type.aliases, help=doc, description=doc, usage=usage)
        command.set_defaults(source_type=source_type)
        if hasattr(source_type.options_type, "located"):
            command.add_argument(
                "place", nargs="?", default="", metavar="FILE", help="file, folder, or name on the hub"
            )
        add_options(command, source_type.options_type)
    return parser


if __name__ == "__main__":
    sys.exit(main())
