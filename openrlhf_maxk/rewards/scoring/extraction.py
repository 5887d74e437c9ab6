"""Finding the program in what a model wrote.

The rule, in order:

1. Reasoning is not an answer: only what follows the last ``</think>`` (or another name of it) counts, and nothing if a
   thought stays open. Special tokens at the ends of the text are no part of it. If a part is marked as the answer
   (``<answer>``, ``[PYTHON]``) and holds a program, that is the program.
2. Programs stand in fenced blocks (:mod:`.fences`), marked as Python or not at all. If the first fence names no
   language and what stands before it looks like Python, the prompt has opened that block.
3. The last block that is a program of its own is taken. Not one of its own is a block of comments, of asserts, of a
   console session, or one that only calls what an earlier block defines. If such a block reads the input, and the
   earlier one does not, they are one program. Beside a marked block, one without a mark must define, import or read.
4. Without any fence, the longest part without prose is the program, if a line of it looks like Python. Where the prompt
   holds the beginning of the program, all of the text is.
5. Otherwise there is no program.

Time is linear in the text, and nothing of it is parsed or compiled here: that is work for the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from openrlhf_maxk.rewards.scoring.fences import INVISIBLE, PYTHON, UNMARKED, Block, blocks_of, without_strings

RULES = 2
"""Raised when a completion may get another program than before: evaluations keep apart what they made of samples."""

SPECIAL_TOKENS = (
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|<s>|</s>|<bos>|<eos>|<pad>|<unk>|<(?:start|end)_of_turn>"
    r"|\[PAD\]|\[SEP\]|\[/?INST\]"
)
_AT_END = re.compile(rf"(?:{SPECIAL_TOKENS})\s*\Z")
_AT_START = re.compile(rf"\A\s*(?:{SPECIAL_TOKENS})(?:assistant\b|model\b)?")
_THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
_ANSWERS = re.compile(
    r"^[ \t]*(?:<(?P<tag>answer|solution|code|python)>|(?P<llama>\[PYTHON\])|<\|begin_of_solution\|>)", re.I | re.M
)
_ANSWER_ENDS = re.compile(r"</(?:answer|solution|code|python)>|\[/PYTHON\]|<\|end_of_solution\|>", re.I)
_CODE_LINE = re.compile(
    r"(import[ \t]+[\w.]+([ \t]*,[ \t]*[\w.]+)*([ \t]+as[ \t]+\w+)?[ \t]*([#;].*)?$|from[ \t]+[\w.]+[ \t]+import\b)"
    r"|(async[ \t]+)?def[ \t]+\w+[ \t]*\("
    r"|class[ \t]+\w+[ \t]*(\([^\n]*\))?:"
    r"|(for[ \t]+\(?\*?[\w.\[\]]+([ \t]*,[ \t]*\(?\*?[\w.\[\]]+\)?)*,?\)?[ \t]+in[ \t]"
    r"|while\b|if\b|elif\b|with\b)[^\n]*:"
    r"|(try|else|finally)[ \t]*:"
    r"|@\w+"
    r"|\w+(\.\w+|\[[^\]\n]*\])*\("  # a call
    r"|\(?\*?[\w.\[\]]+([ \t]*,[ \t]*[\w.\[\]*]+)*\)?[ \t]*(:[ \t]*[\w.\[\], ]+)?"
    r"[ \t]*([-+*/%&|^@]|//|\*\*|<<|>>)?=[^=]"  # an assignment
)
_BODY_LINE = re.compile(r"[ \t]+(return|yield|raise|pass|break|continue|assert|del|global|nonlocal)\b")
_WORD = re.compile(r"[\"'(*`_]*[A-Za-z][\w'’-]*[.,;:!?)*`\"'_]*|[0-9]+[.,]?|[-–—&]")
_SHORTEST_SENTENCE = 3  # words
_SHORT_PROSE = re.compile(r"\**[A-Z][\w' ,-]*[.!:?]\**|Output:? .*")
_DEFINED = re.compile(r"^(?P<indent>[ \t]*)(?:async[ \t]+)?(?:def|class)[ \t]+(?P<name>\w+)", re.MULTILINE)
_USED = re.compile(r"(?<![\w.])([^\W\d]\w*)[ \t]*[(.]")
_READS = re.compile(r"\binput[ \t]*\(|\bstdin\b|\bopen\((?:0|[\"']/dev/stdin)|\bfileinput\b|\bread\(0")
_WHOLE = re.compile(r"^(?:def|class)[ \t]+\w|^import[ \t]+\w|^from[ \t]+[\w.]+[ \t]+import\b", re.MULTILINE)
_OF_A_CONSOLE = (">>>", "$", "!", "%", "pip ", "python ")
_LONGEST_LINE = 1000  # characters looked at in one line
_TOKENS_AT_ENDS = 200  # characters


def extract_program(completion: str, continues: bool = False) -> str | None:
    """The program in ``completion``, or None if there is none. See the module for the rule.

    ``continues``: the prompt holds the beginning of the program (:attr:`Problem.program_prefix`), so that text without
    fences is code, be it the body of a function only.
    """
    text = _answer(completion)
    for part in _marked_parts(text):
        program = _in_text(part, continues=False)
        if program is not None:
            return program
    return _in_text(text, continues)


def fenced_programs(completion: str) -> int:
    """How many fenced blocks of a completion hold a program: marked as Python or not at all, and not empty."""
    found = [block for block in blocks_of(_answer(completion)) if block.text.strip() and block.info.lower() != "text"]
    return sum(block.language in (PYTHON, UNMARKED) for block in found)


def conclusion(completion: str) -> str:
    """What follows the last thought; nothing if a thought stays open."""
    closings = [completion.rfind(closed) + len(closed) for _, closed in _THOUGHTS if closed in completion]
    if not closings and any(opened in completion for opened, _ in _THOUGHTS):
        return ""
    return completion[max(closings, default=0) :]


def without_special_tokens(text: str) -> str:
    """The text without the special tokens at its ends, and what a tokenizer leaves beside them."""
    while match := _AT_END.search(text, max(0, len(text) - _TOKENS_AT_ENDS)):
        text = text[: match.start()]
    while match := _AT_START.match(text):
        text = text[match.end() :]
    return text


def _answer(completion: str) -> str:
    text = conclusion(completion).replace("\r\n", "\n")
    return without_special_tokens(text.strip(INVISIBLE))


def _marked_parts(text: str) -> list[str]:
    """What is marked as the answer, the last one first."""
    starts = list(_ANSWERS.finditer(text))[-3:]
    parts = []
    for start in reversed(starts):
        end = _ANSWER_ENDS.search(text, start.end())
        parts.append(text[start.end() : end.start() if end else len(text)])
    return parts


def _in_text(text: str, continues: bool) -> str | None:
    blocks = blocks_of(text)
    if not blocks:
        if continues:
            return text.strip("\n") if text.strip() else None
        return _without_prose(text)
    opened_by_prompt = _opened_by_prompt(text, blocks[0])
    if opened_by_prompt is not None:
        blocks = [Block(PYTHON, opened_by_prompt, 0), *blocks_of(_after_fence(text, blocks[0].start))]
    return _choose([block for block in blocks if block.text.strip()])


def _opened_by_prompt(text: str, first: Block) -> str | None:
    """What stands before the first fence, if that closes a block which the prompt has opened."""
    before = text[: first.start]
    lines = [line for line in before.split("\n") if line.strip()]
    if first.info or not any(map(_is_code, lines)):
        return None
    prose = [line for line in without_strings(before).split("\n") if _is_prose(line)]
    return before.strip("\n") if len(prose) < sum(map(_is_code, lines)) and not _is_prose(lines[0]) else None


def _after_fence(text: str, at: int) -> str:
    return text[at:].lstrip("`~")


def _choose(blocks: Sequence[Block]) -> str | None:
    """The program among blocks that are not empty."""
    marked = any(block.language == PYTHON for block in blocks)
    defined: dict[str, Block] = {}  # by whom, so far
    best: str | None = None
    fallback: str | None = None
    for block in blocks:
        if not _may_be_program(block, marked):
            continue
        definitions = list(_DEFINED.finditer(block.text))
        own = {definition["name"] for definition in definitions}
        named = dict.fromkeys(_USED.findall(block.text))
        used = {name: defined[name] for name in named if name in defined and name not in own}
        if fallback is None or block.language == PYTHON or not marked:
            fallback = block.text
        if _stands_alone(block.text) and not used:
            best = block.text
        elif used and _READS.search(block.text) and not any(_READS.search(by.text) for by in used.values()):
            best = "\n\n".join([*dict.fromkeys(by.text for by in used.values()), block.text])
        defined.update({definition["name"]: block for definition in definitions if not definition["indent"]})
    return best if best is not None else fallback


def _may_be_program(block: Block, marked: bool) -> bool:
    if block.language == PYTHON:
        return True
    if block.language != UNMARKED:
        return False
    if marked:
        return bool(_WHOLE.search(block.text) or _READS.search(block.text))
    return any(map(_is_code, block.text.split("\n"))) or not block.info


def _stands_alone(text: str) -> bool:
    """Whether it is more than comments, asserts, or a session of a console."""
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    top = [line for line in lines if not line[0].isspace()]
    if not lines or lines[0].lstrip().startswith(_OF_A_CONSOLE):
        return False
    return not top or not all(line.startswith(("assert ", "assert(", ")", "]")) for line in top)


def _without_prose(text: str) -> str | None:
    """The longest part of a text without fences in which no line is prose, if it looks like Python."""
    lines, bare = text.split("\n"), without_strings(text).split("\n")
    parts: list[list[int]] = [[]]
    for number, line in enumerate(bare):
        if _is_prose(line):
            parts.append([])
        else:
            parts[-1].append(number)
    rated = [(sum(_is_code(bare[number]) for number in part), index) for index, part in enumerate(parts)]
    most, index = max(rated)
    if not most:
        return None
    return "\n".join(lines[number] for number in parts[index]).strip("\n")


def _is_code(line: str) -> bool:
    line = line[:_LONGEST_LINE]
    return _CODE_LINE.match(line.lstrip()) is not None or _BODY_LINE.match(line) is not None


def _is_prose(line: str) -> bool:
    """Whether a line, which is not indented, is a sentence or a heading and cannot be Python."""
    line = line[:_LONGEST_LINE].rstrip()
    if not line or line[0].isspace() or line[0] in "#@" or _is_code(line):
        return False
    words = line.lstrip("-*•>0123456789.)_ \t").split(maxsplit=_SHORTEST_SENTENCE)[:_SHORTEST_SENTENCE]
    sentence = len(words) == _SHORTEST_SENTENCE and all(map(_WORD.fullmatch, words))
    return sentence or _SHORT_PROSE.fullmatch(line) is not None
