"""The reward of both contestants: a number from the text alone, so that no program is run and nothing is waited for."""

from __future__ import annotations

SPECIAL = ("<bos>", "<eos>", "<pad>")


def reward_of(completion: str) -> float:
    """The share of digits and letters that are vowels, from 0 to 1: it differs within a group, and costs nothing."""
    for token in SPECIAL:
        completion = completion.replace(token, "")
    letters = [letter for letter in completion if letter.isalnum()]
    return sum(letter in "aeiou" for letter in letters) / max(1, len(letters))


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict[str, list[float]]:
    """As OpenRLHF asks for it."""
    return {"rewards": [reward_of(query[len(prompt) :]) for query, prompt in zip(queries, prompts, strict=True)]}
