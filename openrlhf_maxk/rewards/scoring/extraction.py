"""Finding the program in what a model wrote.

The rule, in order:

1. Reasoning is not an answer: only what follows the last ``</think>`` counts, and nothing if a ``<think>`` stays open.
2. A fenced block starts at a line of three or more backticks or tildes, with at most a language after them, and ends at
   a line of at least as many of the same and nothing else, or at the end of the text (a completion that was cut off).
   If the first such line names no language, and what stands before it looks like Python, the prompt has opened the
   block: the text starts inside it.
3. The last block that is marked as Python is the program. If none is, it is the last block without a language. Empty
   blocks do not count, nor do blocks in other languages.
4. Without any fence, the whole text is the program if a line of it looks like Python, indented or not.
5. Otherwise there is no program.

Time is linear in the text, and nothing of it is parsed or compiled here: that is work for the sandbox.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RULES = 1
"""Raised when a completion may get another program than before: evaluations keep apart what they made of samples."""

_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\r\n]*)")
_PYTHON = re.compile(r"\{?[.=]?(python|py|pypy|cpython)[0-9.]*\}?|.*\.py", re.IGNORECASE)
_CODE_LINE = re.compile(
    r"(import|from)[ \t]+[\w.]+"  # statements that need no colon
    r"|(def|class)[ \t]+\w+[^\n]*:"
    r"|(for|while|if|with)\b[^\n]*:"
    r"|try[ \t]*:"
    r"|@\w+"
    r"|\w+(\.\w+)*\("  # a call
    r"|[\w.\[\]]+([ \t]*,[ \t]*[\w.\[\]*]+)*[ \t]*([-+*/%&|^@]|//|\*\*|<<|>>)?=[^=]"  # an assignment
)
_LONGEST_LINE = 1000  # characters looked at in one line


@dataclass(slots=True)
class _Block:
    language: str
    indent: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(_without_indent(line, self.indent) for line in self.lines).strip("\n")


def extract_program(completion: str) -> str | None:
    """The program in ``completion``, or None if there is none. See the module for the rule."""
    answer = conclusion(completion)
    blocks, fenced = _blocks(answer.split("\n"))
    full = [block for block in blocks if block.text.strip()]
    for wanted in ("python", ""):
        for block in reversed(full):
            if block.language == wanted:
                return block.text
    if not fenced and _looks_like_code(answer.split("\n")):
        return answer.strip("\n")
    return None


def fenced_programs(completion: str) -> int:
    """How many fenced blocks of a completion hold a program: marked as Python or not at all, and not empty."""
    blocks, _ = _blocks(conclusion(completion).split("\n"))
    return sum(block.language in ("python", "") and bool(block.text.strip()) for block in blocks)


def conclusion(completion: str) -> str:
    """What follows the last thought; nothing if a thought stays open."""
    _, closed, answer = completion.rpartition("</think>")
    return "" if not closed and "<think>" in completion else answer


def _blocks(lines: list[str]) -> tuple[list[_Block], bool]:
    """The fenced blocks of a text, and whether there was any fence."""
    blocks: list[_Block] = []
    current: _Block | None = None
    fence = ""
    fenced = False
    for number, line in enumerate(lines):
        match = _FENCE.fullmatch(line.rstrip("\r"))
        if match is None or (current is not None and not _closes(match, fence)):
            if current is not None:
                current.lines.append(line)
            continue
        if current is not None:
            current = None
        elif not fenced and not match["info"].strip() and _looks_like_code(lines[:number]):
            blocks.append(_Block("", 0, lines[:number]))
        else:
            fence = match["fence"]
            current = _Block(_language(match["info"]), len(match["indent"]), [])
            blocks.append(current)
        fenced = True
    return blocks, fenced


def _closes(match: re.Match[str], fence: str) -> bool:
    return match["fence"].startswith(fence) and not match["info"].strip()


def _language(info: str) -> str:
    """``python`` for all names of it, the empty string for none, the first word otherwise."""
    first = info.split()[0].lower() if info.strip() else ""
    return "python" if _PYTHON.fullmatch(first) else first


def _looks_like_code(lines: list[str]) -> bool:
    return any(_CODE_LINE.match(line[:_LONGEST_LINE].lstrip()) for line in lines)


def _without_indent(line: str, indent: int) -> str:
    blank = len(line) - len(line.lstrip(" \t"))
    return line[min(blank, indent) :]
