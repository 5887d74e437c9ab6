"""vLLM made up: its real requests and outputs, completions that are given, log-probs that follow from the tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from openrlhf.trainer.ray.vllm_engine import RolloutRayActor
from vllm import SamplingParams
from vllm.inputs import TokensPrompt
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

GroupRolloutActor = RolloutRayActor.__ray_metadata__.modified_class  # the class that Ray makes actors of
Completion = tuple[Sequence[int], str]  # tokens, why vLLM ended it

BEGIN, END = 1, 2


class Tokenizer:
    """A letter is a token, from 3 on; ``BEGIN`` stands before a text where it is asked for, ``END`` reads "$"."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [BEGIN] * add_special_tokens + [ord(letter) - ord("a") + 3 for letter in text]}

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        special = {} if skip_special_tokens else {BEGIN: "^", END: "$"}
        return "".join(special.get(token, "" if token < 3 else chr(token - 3 + ord("a"))) for token in tokens)


def log_prob_of_token(before: int, token: int) -> float:
    """A number that no other pair of tokens has."""
    return -(before + token / 100)


class FakeVLLM:
    """Stands for vLLM's engine.

    A request for n samples gets the first n of its prompt's ``completions`` (a mapping from the prompt's tokens, or the
    same for all), each with ``log_prob(token before, token)`` for its tokens and for one token that was not sampled.
    """

    def __init__(self, completions: Any, log_prob: Callable[[int, int], float] = log_prob_of_token) -> None:
        self.completions, self.log_prob = completions, log_prob
        self.requests: list[tuple[list[int], SamplingParams]] = []

    async def generate(
        self, prompt: TokensPrompt, params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        """All samples in one output if only the final one is asked for, else, as vLLM, sample by sample."""
        tokens = list(prompt["prompt_token_ids"])
        self.requests.append((tokens, params))
        given = self.completions[tuple(tokens)] if isinstance(self.completions, dict) else self.completions
        samples = [self._sample(i, tokens, *given[i], params) for i in range(params.n)]
        together = params.output_kind is RequestOutputKind.FINAL_ONLY
        for outputs in [samples] if together else [[sample] for sample in samples]:
            yield RequestOutput(request_id, None, tokens, None, outputs, finished=True)

    def _sample(
        self, index: int, prompt: Sequence[int], tokens: Sequence[int], reason: str, params: SamplingParams
    ) -> CompletionOutput:
        log_probs = None
        if params.logprobs is not None:
            pairs = zip([prompt[-1], *tokens], tokens, strict=False)
            log_probs = [{token + 1: Logprob(-0.001), token: Logprob(self.log_prob(at, token))} for at, token in pairs]
        return CompletionOutput(index, "", list(tokens), None, log_probs, finish_reason=reason)


def make_actor(llm: Any) -> Any:
    """A rollout actor around an engine, without Ray and without starting vLLM."""
    actor = object.__new__(GroupRolloutActor)
    actor.llm, actor._has_agent = llm, False
    return actor
