"""Samples from an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

from openrlhf_maxk.evaluation.samples.problem_set import Input, messages_of
from openrlhf_maxk.evaluation.samples.records import Request, Sample, Sampling

Ask = Callable[[Request], list[tuple[str, str]]]  # texts, and how they ended

_FAILURES = 8  # so many requests that fail one after the other end the run


class EndpointError(Exception):
    """The endpoint refuses what is asked, or cannot be reached."""


@dataclass(frozen=True)
class EndpointSampler:
    """Asks for several samples at once (``n``) where the endpoint allows it, and for the rest where it gives fewer.

    Trouble that may pass (rate limits, timeouts, errors of the server) is retried with growing pauses. A request that
    keeps failing is left out and asked for again by the next run; a refusal, or failures one after the other, end the
    run. The seeds of the samples of one request are the endpoint's affair: with a vLLM server they are those of
    :class:`~openrlhf_maxk.evaluation.samples.vllm_sampler.VllmSampler`.
    """

    url: str
    model: str
    sampling: Sampling
    inputs: Mapping[str, Input]  # by problem id
    chat: bool = True  # chat completions, of messages; else completions, of the prompt text
    concurrency: int = 32
    retries: int = 6
    timeout: float = 600.0  # seconds
    api_key: str | None = None  # OPENAI_API_KEY of the environment unless given

    def identity(self) -> dict[str, Any]:
        return {"kind": "endpoint", "url": self.url, "model": self.model, "chat": self.chat}

    def available(self, problem: str) -> None:
        return None

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Sample]]:
        """Answer requests as they finish.

        Raises:
            EndpointError: the endpoint refuses, or is not there.
        """
        failures = 0
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="endpoint") as pool:
            ask = self._asker()
            futures = [pool.submit(self._samples, ask, request) for request in requests]
            try:
                for future in as_completed(futures):
                    samples, error = future.result()
                    if samples:
                        yield samples
                    failures = 0 if error is None else failures + 1
                    if failures >= _FAILURES:
                        raise EndpointError(f"{self.url} keeps failing: {error}") from error
            finally:
                for future in futures:
                    future.cancel()

    def _samples(self, ask: Ask, request: Request) -> tuple[list[Sample], Exception | None]:
        """All samples of one request, in as many calls as the endpoint needs; fewer, and why, after an error that may
        pass."""
        from openai import APIConnectionError, APIStatusError

        samples: list[Sample] = []
        while (done := len(samples)) < request.count:
            rest = replace(request, first=request.first + done, count=request.count - done, seed=request.seed + done)
            try:
                choices = ask(rest)[: rest.count]
            except APIStatusError as error:
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    raise EndpointError(f"{self.url} refuses: {error}") from error
                return samples, error
            except APIConnectionError as error:
                return samples, error
            if not choices:
                return samples, EndpointError(f"{self.url} answered without a choice")
            samples += [Sample(request.problem, rest.first + i, *choice) for i, choice in enumerate(choices)]
        return samples, None

    def _asker(self) -> Ask:
        """A function from a request to texts and how they ended."""
        from openai import OpenAI

        key = self.api_key or os.environ.get("OPENAI_API_KEY") or "none"
        client = OpenAI(base_url=self.url, api_key=key, max_retries=self.retries, timeout=self.timeout)
        settings: dict[str, Any] = {
            "model": self.model,
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "max_tokens": self.sampling.max_new_tokens,
            "stop": list(self.sampling.stop) or None,
            "extra_body": {"top_k": self.sampling.top_k} if self.sampling.top_k else None,
        }

        def ask_chat(request: Request) -> list[tuple[str, str]]:
            messages: Any = messages_of(self.inputs[request.problem])
            answer = client.chat.completions.create(messages=messages, n=request.count, seed=request.seed, **settings)
            return [(choice.message.content or "", choice.finish_reason or "stop") for choice in answer.choices]

        def ask_text(request: Request) -> list[tuple[str, str]]:
            answer = client.completions.create(prompt=request.prompt, n=request.count, seed=request.seed, **settings)
            return [(choice.text, choice.finish_reason or "stop") for choice in answer.choices]

        return ask_chat if self.chat else ask_text
