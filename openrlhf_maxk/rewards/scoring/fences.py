"""The fenced blocks of what a model wrote, as models write them: CommonMark, and what is usual beside it.

A fence opens a block at the beginning of a line, behind the mark of a list or a quotation, or behind prose, with at
most a language (and attributes) after it. In Python no backtick stands outside of strings and comments, so a block of
Python, or of no language, ends at the first fence that is in neither, wherever it stands in its line and whatever
follows. Blocks of other languages end at a line that begins with a fence. Where the text ends, so does a block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PYTHON, UNMARKED = "python", ""
INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"  # a byte order mark, and what has no width

_RUN = re.compile(r"`{3,}|~{3,}")
_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)$", re.MULTILINE)
_ON_ONE_LINE = re.compile(r"(?P<fence>`{3,})(?:(?P<info>[a-zA-Z0-9.+#]+)[ \t]+)?(?P<code>[^`\n]+)(?P=fence)(?!`)")
_PYTHON = re.compile(r"(?:language-|lang-|x-)?(?:i?python|py|pypy|cpython)[0-9.]*|.*\.py", re.IGNORECASE)
_WORD = re.compile(r"[^\s,;:=(){}\[\]|!/\"'<>]+")
_OF_A_NOTEBOOK = ("code", "code-cell", "lang", "language", "text")  # words that a language may follow
_NO_LANGUAGE = [
    "code",
    "solution",
    "answer",
    "program",
    "final",
    "script",
    "main",
    "plain",
    "plaintext",
    "text",
    "txt",
    "none",
    "editor",
]
_CODE_ON_FENCE = re.compile(r"(?:import|from|def|class|for|while|if|print|input|sys|n)\b.*[\w)\]:]$")
_MARK = re.compile(r"[ \t]*(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]+)?")
_QUOTATION = re.compile(r"[ \t]*(?:>[ \t]?)+")
_LEXEME = re.compile(
    r"'''|\"\"\""
    r"|'(?:[^'\\\n]|\\.)*(?:'|$)|\"(?:[^\"\\\n]|\\.)*(?:\"|$)"
    r"|(?P<comment>#[^\n]*)"
    r"|(?P<fence>`{3,})",
    re.MULTILINE,
)
_ENDS = {
    "'''": re.compile(r"(?:[^'\\]|\\.|'(?!''))*+'''", re.DOTALL),
    '"""': re.compile(r"(?:[^\"\\]|\\.|\"(?!\"\"))*+\"\"\"", re.DOTALL),
}
_FENCE_IN_COMMENT = re.compile(r"`{3,}\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its language (``python`` for all names of it, empty for none) and its text."""

    language: str
    text: str
    start: int  # where its fence stands in the text
    info: str = ""  # what followed the fence


def blocks_of(text: str) -> list[Block]:
    """The blocks, in order. Time is linear in the text."""
    found: list[Block] = []
    at = 0
    while (opening := _next_opening(text, at)) is not None:
        block, at = opening if isinstance(opening, tuple) else _read(text, opening)
        found.append(block)
    return found


def language_of(info: str) -> str:
    """The language that the text behind a fence names."""
    words = _WORD.findall(info)[:2]
    if len(words) == 2 and words[0].lower().strip(".") in _OF_A_NOTEBOOK and _PYTHON.fullmatch(words[1]):
        return PYTHON
    word = words[0].strip(".").lower() if words else ""
    if _PYTHON.fullmatch(word):
        return PYTHON
    return UNMARKED if word in _NO_LANGUAGE else word


def without_strings(text: str) -> str:
    """Python with its strings of several lines left blank, line by line."""
    parts, at = [], 0
    for start, end in _long_strings(text):
        parts += [text[at:start], "''" + "\n" * text.count("\n", start, end)]
        at = end
    return "".join([*parts, text[at:]])


def _next_opening(text: str, at: int) -> re.Match[str] | tuple[Block, int] | None:
    """The next fence that opens a block; or a whole block, if it stands on one line."""
    for run in _RUN.finditer(text, at):
        line = _ON_ONE_LINE.match(text, run.start())
        if line is not None:
            return Block(language_of(line["info"] or ""), line["code"].strip(), line.start()), line.end()
        fence = _FENCE.match(text, run.start())
        if fence is not None and (run[0][0] == "`" or not _before(text, fence).strip()):  # else an operator, say
            return fence
    return None


def _before(text: str, match: re.Match[str]) -> str:
    """What stands before a fence on its line."""
    return text[text.rfind("\n", 0, match.start()) + 1 : match.start()]


def _read(text: str, opening: re.Match[str]) -> tuple[Block, int]:
    """The block that a fence opens, and where the text after it begins."""
    language, start = language_of(opening["info"]), min(opening.end() + 1, len(text))
    lexical = language in (PYTHON, UNMARKED) and opening["fence"][0] == "`"
    end, after = (_end_of_python if lexical else _end_of_other)(text, start, opening["fence"])
    lines = text[start:end].split("\n")
    before = _before(text, opening).strip(INVISIBLE)
    if quotation := _QUOTATION.match(before):
        lines = [_QUOTATION.sub("", line, count=1) for line in lines]
        before = before[quotation.end() :]
    mark = _MARK.match(before)
    indent = len(mark[0]) if mark else 0
    content = "\n".join(_without_indent(line, indent) for line in lines).strip("\n")
    info = opening["info"].strip()
    if language == PYTHON:
        _, _, rest = info.partition(" ")
        if _CODE_ON_FENCE.fullmatch(rest.strip()) and '="' not in rest and "='" not in rest:
            content = f"{rest.strip()}\n{content}"
    return Block(language, content.lstrip(INVISIBLE), opening.start(), info), after


def _end_of_python(text: str, start: int, fence: str) -> tuple[int, int]:
    """Where the content of a block of Python ends, and where the text after it begins."""
    at = start
    hopeless: set[str] = set()  # quotes that close no more
    while (lexeme := _LEXEME.search(text, at)) is not None:
        at = lexeme.end()
        if lexeme["fence"]:
            if len(lexeme["fence"]) >= len(fence):
                return _closing(text, lexeme.start(), at)
        elif lexeme["comment"]:
            closing = _FENCE_IN_COMMENT.search(lexeme[0]) if "```" in lexeme[0] else None
            if closing is not None and len(closing[0].strip()) >= len(fence):
                return lexeme.start() + closing.start(), at
        elif (ends := _ENDS.get(lexeme[0])) is not None and lexeme[0] not in hopeless:
            end = ends.match(text, at)
            if end is None or _opens_python(text, at, end.end()):
                hopeless.add(lexeme[0])
            else:
                at = end.end()
    return len(text), len(text)


def _opens_python(text: str, start: int, end: int) -> bool:
    """Whether a string as long as that would hold two blocks: then its quote was never meant to reach so far."""
    return len(re.findall(r"^```python *$", text[start:end], re.MULTILINE)) > 1


def _end_of_other(text: str, start: int, fence: str) -> tuple[int, int]:
    closing = re.compile(rf"^[ \t>]*{re.escape(fence)}{re.escape(fence[0])}*", re.MULTILINE).search(text, start)
    return (len(text), len(text)) if closing is None else _closing(text, closing.start(), closing.end())


def _closing(text: str, start: int, end: int) -> tuple[int, int]:
    """A block that ends at a fence; one that names a language begins the next block, at that fence."""
    line_start, line_end = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    info = text[end : len(text) if line_end < 0 else line_end].strip()
    alone = not text[line_start : text.rfind("`", 0, end) + 1].strip(" \t>`~")
    opens_again = alone and info and language_of(info) == PYTHON and "`" not in info
    return start, text.rfind("\n", 0, end) + 1 if opens_again else end


def _long_strings(text: str) -> list[tuple[int, int]]:
    found, at = [], 0
    hopeless: set[str] = set()
    while (lexeme := _LEXEME.search(text, at)) is not None:
        at = lexeme.end()
        ends = _ENDS.get(lexeme[0])
        if ends is not None and lexeme[0] not in hopeless:
            end = ends.match(text, at)
            if end is None:
                hopeless.add(lexeme[0])
            else:
                at = end.end()
                found.append((lexeme.start(), at))
    return found


def _without_indent(line: str, indent: int) -> str:
    blank = len(line) - len(line.lstrip(" \t"))
    return line[min(blank, indent) :]
