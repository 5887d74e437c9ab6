"""The options of ``prepare``: one dataclass a data set, read by the command line and recorded in the manifest.

Every choice that the paper leaves open is one of these. Options that change what is written are part of a preparation's
identity; those marked ``identity=False`` (where things are, how fast they run) are not.
"""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


def option(default: Any, text: str, *, choices: tuple[str, ...] = (), least: float = 0, identity: bool = True) -> Any:
    """A dataclass field that is a command-line option; ``least`` is its smallest value, if it is a number."""
    return field(default=default, metadata={"help": text, "choices": choices, "least": least, "identity": identity})


@dataclass(frozen=True)
class PrepareOptions:
    """What all data sets have in common."""

    out: str = option("", "folder to write; it appears when everything in it is complete", identity=False)
    source: str = option("", "file or folder with the original files; empty: the hub", identity=False)
    repo: str = option("", "data set on the hub; empty: the original one")
    revision: str = option("main", "branch, tag or commit on the hub; the commit is recorded", identity=False)
    overwrite: bool = option(False, "replace a folder that other inputs or options have made", identity=False)
    limit: int = option(0, "read only so many rows; 0: all")
    on_bad_file: str = option("stop", "an unreadable file stops the job, or is counted", choices=("stop", "skip"))

    tokenizer: str = option(
        "Qwen/Qwen2.5-Coder-7B-Instruct", "tokenizer that counts tokens and renders chats; none: do without"
    )
    token_limit: int = option(0, "drop longer problems, in tokens; 0: none")
    token_limit_on: str = option("statement", "what the limit counts", choices=("statement", "prompt"))
    prompt: str = option(
        "chat",
        "chat: messages, for --data.apply_chat_template; chat_text: rendered; few_shot, plain: text for base models",
        choices=("chat", "chat_text", "few_shot", "plain"),
    )
    system_prompt: str = option("", "system message of chat prompts; empty: none")

    validate: bool = option(True, "run the reference solutions against the tests")
    references: int = option(3, "reference solutions to run for a problem, at most")
    reference_rule: str = option(
        "majority", "how many of them must pass every test", choices=("any", "majority", "all")
    )
    unreferenced: str = option("keep", "problems without a reference solution", choices=("keep", "drop"))
    cores: int = option(0, "cores for validation; 0: all", identity=False)
    unsafe: bool = option(False, "run programs even where they cannot be locked down", identity=False)
    time_scale: float = option(2.0, "times the original time limit, for Python on this machine")
    cpu_seconds: float = option(6.0, "time limit of problems that state none, before scaling")
    max_cpu_seconds: float = option(20.0, "longest time limit, after scaling")
    memory_scale: float = option(2.0, "times the original memory limit, for Python objects")
    memory_mb: int = option(512, "least memory limit, and that of problems that state none, MiB")

    decontaminate: str = option("", "prepared folders, comma separated: drop what is in them too", identity=False)
    decontaminate_against: str = option(
        "all", "of those folders: every problem their source has, or those kept", choices=("all", "kept")
    )
    within: str = option("keep", "repeated problems of the data set itself", choices=("keep", "exact", "near"))
    overlap: float = option(0.5, "share of common n-grams from which two statements are near-duplicates; 0: never")
    ngram: int = option(8, "words of an n-gram")

    max_row_mb: int = option(256, "larger rows are rejected unread, MiB")
    max_decoded_mb: int = option(256, "largest size of packed tests after unpacking, MiB")
    max_test_mb: int = option(32, "largest test, MiB")
    max_tests_mb: int = option(256, "all tests of a problem, MiB")
    max_tests: int = option(5000, "tests of a problem")
    max_statement_chars: int = option(100_000, "longest statement, characters")
    chunk_rows: int = option(64, "rows between two points that a killed job goes on from", identity=False)

    def __post_init__(self) -> None:
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata["choices"]
            if choices and value not in choices:
                raise ValueError(f"--{f.name} {value}: choose one of {', '.join(choices)}")
            if isinstance(value, int | float) and not value >= f.metadata["least"]:
                raise ValueError(f"--{f.name} {value} must be at least {f.metadata['least']}")
        for name in ("references", "ngram", "chunk_rows", "time_scale", "memory_scale", "max_cpu_seconds"):
            if not getattr(self, name):
                raise ValueError(f"--{name} must be above 0")
        if self.overlap > 1:
            raise ValueError(f"--overlap {self.overlap} is a share: between 0 and 1")
        if self.token_limit and self.tokenizer == "none":
            raise ValueError("--token_limit needs a --tokenizer to count with (a name on the hub or a folder)")
        if self.prompt == "chat_text" and self.tokenizer == "none":
            raise ValueError("--prompt chat_text needs a --tokenizer with a chat template")

    def identity(self) -> dict[str, Any]:
        """The options that decide what is written."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["identity"]}


def add_options(parser: argparse.ArgumentParser, options_type: type[PrepareOptions]) -> None:
    """Add every option of a data set to a command line."""
    for f in fields(options_type):
        default = _default(f)
        text = f"{f.metadata['help']} (default: {default if default != '' else 'none'})".replace("%", "%%")
        extra: dict[str, Any] = {"choices": f.metadata["choices"]} if f.metadata["choices"] else {}
        if isinstance(default, bool):
            extra["action"] = argparse.BooleanOptionalAction
        else:
            extra["type"] = type(default)
            extra["metavar"] = None if f.metadata["choices"] else f.name.upper()
        parser.add_argument(f"--{f.name}", default=default, help=text, required=f.name == "out", **extra)


def read_options(namespace: argparse.Namespace, options_type: type[T]) -> T:
    """The options that a command line gave.

    Raises:
        ValueError: if they are out of range or contradict each other.
    """
    return options_type(**{f.name: getattr(namespace, f.name) for f in fields(options_type)})  # type: ignore[arg-type]


def _default(f: Field[Any]) -> Any:
    assert f.default is not MISSING
    return f.default
