"""What the commands share: how a number is read, and how an error of the system is said."""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Sequence
from typing import NoReturn


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def reason(error: OSError) -> str:
    """What the system refused, and for which file."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def parse_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parse options; also a line for each that does not exist, with the nearest one that does.

    Exits with one line, without the usage, for a value that is not what its option takes.
    """
    # The parser is OpenRLHF's own, so no subclass can say what an error does.
    parser.error = functools.partial(_exit, parser)  # type: ignore[method-assign]
    flat, extra = parser.parse_known_args(argv)
    names = [word.partition("=")[0] for word in extra if word.startswith("--")]
    lines = [f"{name} is not an option{_nearest(name, parser)}" for name in names]
    if extra and not names:
        lines = [f"{' '.join(extra)} belongs to no option"]
    return flat, lines


def _exit(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    parser.exit(2, f"error: {message.removeprefix('argument ')}\n")


def _nearest(name: str, parser: argparse.ArgumentParser) -> str:
    near = difflib.get_close_matches(name, parser._option_string_actions, 1)
    return f": did you mean {near[0]}?" if near else ": --help lists all of them"
