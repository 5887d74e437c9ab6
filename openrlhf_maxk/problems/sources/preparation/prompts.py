"""From a problem to what a model reads, and how many tokens that is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Mode, Problem
from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.source import Message, SourceError

Prompt = str | list[dict[str, str]]

TASKS = {
    Mode.STDIN: "Write a Python 3 program that solves the problem. It reads standard input and writes standard output.",
    Mode.FUNCTION: "Complete the Python 3 code so that it solves the problem. Do not read or print anything.",
    Mode.ASSERTS: "Write Python 3 code that solves the problem.",
}
ANSWER = "Answer with the whole program in one ```python block."
ANSWERS = {  # where no program is asked for
    Comparison.MATH: r"Give the final answer in \boxed{}.",
    Comparison.REASONING_GYM: "Give the final answer between <answer> and </answer>, and nothing else there.",
}

# Worked examples for models without a chat template.
EXAMPLES = {
    Mode.STDIN: [
        (
            "The first line holds n, the second n integers. Print how many of them are even.\n\n"
            "Example input\n4\n3 8 2 7\nExample output\n2",
            "n = int(input())\nnumbers = list(map(int, input().split()))\nprint(sum(x % 2 == 0 for x in numbers))",
        ),
        (
            "A line holds a word. Print YES if it reads the same backwards, else NO.\n\n"
            "Example input\nlevel\nExample output\nYES",
            'word = input().strip()\nprint("YES" if word == word[::-1] else "NO")',
        ),
    ],
    Mode.FUNCTION: [
        (
            "Return the largest difference between two numbers of the list.\n\n"
            "```python\nclass Solution:\n    def widest(self, nums: List[int]) -> int:\n```",
            "class Solution:\n    def widest(self, nums: List[int]) -> int:\n        return max(nums) - min(nums)",
        ),
    ],
    Mode.ASSERTS: [
        (
            "Write a function that counts the vowels of a word.\n\n"
            'Your code should pass:\n```python\nassert count_vowels("banana") == 3\n```',
            'def count_vowels(word):\n    return sum(letter in "aeiou" for letter in word)',
        ),
    ],
}


_HUB_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt and its length."""

    prompt: Prompt
    statement_tokens: int | None  # None without a tokenizer
    prompt_tokens: int | None


class Prompter:
    """Writes prompts in one of the ways of ``--prompt``.

    Args:
        tokenizer: a Hugging Face tokenizer, None to count nothing.
    Raises:
        SourceError: if chats are to be rendered and the tokenizer has no chat template.
    """

    def __init__(self, options: PrepareOptions, tokenizer: Any = None) -> None:
        self.options = options
        self.tokenizer = tokenizer
        if options.prompt == "chat_text" and not getattr(tokenizer, "chat_template", None):
            raise SourceError(f"--prompt chat_text: tokenizer {options.tokenizer} has no chat template; use plain")

    def __call__(
        self, problem: Problem, messages: Sequence[Message] = (), examples: Sequence[tuple[str, str]] = ()
    ) -> Prompted:
        """The prompt of a problem.

        A chat has the problem's own messages where it comes with some; else the examples, which are statements like the
        problem's and answers, as earlier turns.
        """
        style = self.options.prompt
        prompt: Prompt
        if style == "statement":
            prompt = problem.statement
        elif style == "plain":
            prompt = f"{request(problem)}\n\n"
        elif style == "few_shot":
            prompt = few_shot(problem)
        else:
            prompt = self._messages(problem, messages, examples)
        text = self._render(prompt) if isinstance(prompt, list) else prompt
        counts = self._count(problem.statement), self._count(text) if text is not None else None
        if style == "chat_text":
            assert text is not None
            prompt = text
        return Prompted(prompt, *counts)

    def identity(self) -> dict[str, str] | None:
        """What the tokenizer is: its name and a hash of all that decides its output."""
        if self.tokenizer is None:
            return None
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        content = backend.to_str() if backend is not None else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        template = json.dumps(getattr(self.tokenizer, "chat_template", None))
        digest = hashlib.sha256(f"{content}\n{template}".encode()).hexdigest()
        return {"name": PurePath(self.options.tokenizer).name, "sha256": digest}

    def _messages(self, problem: Problem, own: Sequence[Message], examples: Sequence[tuple[str, str]]) -> list[Message]:
        system = [{"role": "system", "content": self.options.system_prompt}] if self.options.system_prompt else []
        if own:
            return [*([] if own[0]["role"] == "system" else system), *own]
        turns = system
        for statement, answer in examples:
            asked = {"role": "user", "content": request(replace(problem, statement=statement))}
            turns += [asked, {"role": "assistant", "content": answer}]
        return [*turns, {"role": "user", "content": request(problem)}]

    def _render(self, messages: list[dict[str, str]]) -> str | None:
        if not getattr(self.tokenizer, "chat_template", None):
            return "\n".join(message["content"] for message in messages) if self.tokenizer else None
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _count(self, text: str) -> int | None:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if self.tokenizer is not None else None


def request(problem: Problem) -> str:
    """The task, the problem and what to answer with."""
    if problem.mode is Mode.ANSWER:
        return f"{body(problem)}\n\n{ANSWERS[problem.judge.comparison]}"
    task = f"{TASKS[problem.mode]} {ANSWER}"
    if problem.program_prefix:
        task = f"{task} It begins with the code given; repeat that code as it is."
    return f"{task}\n\n{body(problem)}"


def few_shot(problem: Problem) -> str:
    """Worked examples, then the problem; the completion is the program and a closing fence."""
    shown = [
        f"Problem\n{statement}\n\nSolution\n```python\n{program}\n```" for statement, program in EXAMPLES[problem.mode]
    ]
    return "\n\n\n".join([*shown, f"Problem\n{body(problem)}\n\nSolution\n```python\n"])


def body(problem: Problem) -> str:
    """The statement with the code and the tests that may be seen."""
    # OpenRLHF takes "<image>" in a message for a picture that comes with it.
    parts = [problem.statement.replace("<image>", "[image]")]
    if code := problem.program_prefix or problem.starter_code:
        parts.append(f"```python\n{code.strip(chr(10))}\n```")
    if problem.mode is Mode.ASSERTS and problem.public_tests:
        tests = "\n".join(test.input for test in problem.tests[: problem.public_tests])
        parts.append(f"Your code should pass:\n```python\n{tests}\n```")
    return "\n\n".join(parts)


def load_tokenizer(options: PrepareOptions) -> Any:
    """The tokenizer of the options, None for "none".

    Raises:
        SourceError: if it cannot be loaded.
    """
    if options.tokenizer == "none":
        return None
    if options.tokenizer.startswith((".", "/", "~")) and not Path(options.tokenizer).is_dir():
        raise SourceError(f"--tokenizer {options.tokenizer}: there is no such folder")
    from transformers import AutoTokenizer

    out_of_reach = None if Path(options.tokenizer).is_dir() else _out_of_reach(options.tokenizer)
    try:
        return AutoTokenizer.from_pretrained(options.tokenizer, local_files_only=out_of_reach is not None)
    except Exception as e:
        cause = out_of_reach or e
        reason = (str(cause).splitlines() or [""])[0]
        raise SourceError(
            f"--tokenizer {options.tokenizer} cannot be loaded ({type(cause).__name__}: {reason}). Name a folder with "
            "one, or pass --tokenizer none --token_limit 0 to do without"
        ) from None


def _out_of_reach(name: str) -> Exception | None:
    """Why the hub has no such repository within reach, None if it has. It is asked once: transformers would ask again
    and again for a minute. What is in the cache is of use all the same.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
    except Exception as error:
        return error
    return None
