"""What the commands share: how a number is read, and how an error of the system is said."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def reason(error: OSError) -> str:
    """What the system refused, and for which file."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
