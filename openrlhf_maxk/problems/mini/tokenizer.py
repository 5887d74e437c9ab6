"""The benchmarks' tokenizer: word-level, over a closed vocabulary, as a Hugging Face fast tokenizer.

Tokens carry their own spaces and newlines, so decoding is concatenation: decoded text is runnable Python, and encoding
it again gives the same tokens. Text outside the vocabulary is left out. Prompts get no special tokens; a completion
ends with ``<eos>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrlhf_maxk.problems.mini.language import NUMBERS, OPERATIONS, READ, READ_WRONGLY, RESULTS, TEMPLATES

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL = (PAD, BOS, EOS, UNK)

CODE: tuple[str, ...] = (
    READ,
    READ_WRONGLY,
    *(
        "a = ",
        "a = [",
        "a = [x for x in a if ",
        "a = sorted(",
        "print(",
        "\n",
        "]\n",
        ")\n",
        ")",
        " for x in a",
        " for x in a]\n",
    ),
    *("a", "x", "abs(x)", "-x", "*a", "set(a)", "sorted(a)"),
    *("sum(", "sum(a)", "len(", "len(a)", "max(a)", "min(a)", "max(a, key=abs)", "max(a, key=a.count)"),
    *(" + ", " - ", " * ", " // ", " / ", " % ", " == 0", " == 1"),
    *("x > ", "x < ", "x == ", "x % ", "abs(x) > ", "abs(x) < ", "a.count(x) == ", "a.count(x) > "),
    *(", key=abs", ", reverse=True"),
    *("[0]", "[-1]", "[1:]", "[:1]", "[-1:]", "[:-1]", "[1:-1]", "[:3]", "[-3:]", "[::2]", "[::-1]"),
    *("0", "1", "2", "3", "5", "10"),
)


def vocabulary() -> tuple[str, ...]:
    """All tokens of the programs; the position is the id."""
    words = [f" {word.text}" for word in OPERATIONS + RESULTS]
    for text, joint in TEMPLATES:
        words += [*re.findall(r" ?[a-z]+|[,:;]", re.sub(r"\{[a-z]+\}", "|", text)), joint]
    numbers = [f" {number}" for number in NUMBERS]
    return tuple(dict.fromkeys([*SPECIAL, *CODE, "\nin", "\nout", *words, *numbers]))


def build_tokenizer(tokens: Sequence[str] | None = None) -> Qwen2Tokenizer:
    """The tokenizer of a benchmark's vocabulary (that of the programs, if none is given); nothing is read from disk.

    Transformers gives every Qwen2 folder a ``Qwen2Tokenizer``, whose own pre-tokenizer and model replace those of
    ``tokenizer.json``. Added tokens come before both: they are found in the text, the longest first, and decoded as
    they are. So all words are added tokens, and nothing is left for the byte-pair model.
    """
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(SPECIAL)},
        merges=[],
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in (tokens or vocabulary())[len(SPECIAL) :]])
    return tokenizer
