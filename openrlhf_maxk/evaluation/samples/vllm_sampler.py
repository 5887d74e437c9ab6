"""Samples from a model, by vLLM engines under Ray: as many problems at once as the engines can hold.

A request asks for all samples of a problem at once, so that its prompt is tokenized once and prefilled once. Every
sample has a seed of its own. The same seeds give the same samples as far as the engine's arithmetic allows: batches of
another make-up may round differently, and a sample may then part from its twin.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openrlhf_maxk.evaluation.samples.model import Model
from openrlhf_maxk.evaluation.samples.records import Request, Sample, Sampling
from openrlhf_maxk.platform import environment, evaluation_dtype, is_cpu, prefix_sharing, ray_cluster, ray_environment


class EngineError(Exception):
    """An engine could not start, or died. What had arrived before is safe."""


@dataclass(frozen=True)
class EngineOptions:
    """How the engines run. Only ``dtype`` changes what they sample."""

    engines: int | None = None  # one on a CPU, or as many as there are GPUs for
    tensor_parallel_size: int = 1
    dtype: str = field(default_factory=evaluation_dtype)  # "auto": the model's
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int | None = None  # samples in a batch; vLLM's own choice unless given
    enforce_eager: bool | None = None  # on a CPU unless given
    extra: Mapping[str, Any] = field(default_factory=dict)  # further arguments of vLLM's engine


@dataclass(frozen=True)
class VllmSampler:
    """Starts engines when the first sample is asked for, and ends them after the last.

    ``entropy_samples``: for the first so many samples of each problem vLLM also reports the log-probability of what it
    sampled, from which the token entropy follows. Reporting costs time, and a few samples a problem show its
    distribution.
    """

    model: Model
    sampling: Sampling
    tokens: Mapping[str, list[int]]  # the prompt of each problem
    options: EngineOptions = EngineOptions()
    entropy_samples: int = 0

    def identity(self) -> dict[str, Any]:
        return {"kind": "vllm", "model": self.model.identity, "dtype": self.options.dtype}

    def available(self, problem: str) -> None:
        return None

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Sample]]:
        """Answer requests as they finish.

        Raises:
            EngineError: an engine could not start, or died.
        """
        with Engines(self) as engines:
            yield []
            yield from engines.sample(requests)

    def engine_arguments(self) -> dict[str, Any]:
        """Arguments of vLLM's engine; what the user gave in ``options.extra`` wins."""
        longest = max(len(tokens) for tokens in self.tokens.values()) + self.sampling.max_new_tokens
        arguments: dict[str, Any] = {
            "model": str(self.model.folder),
            "dtype": self.options.dtype,
            "max_model_len": longest,
            "tensor_parallel_size": self.options.tensor_parallel_size,
            "enforce_eager": is_cpu() if self.options.enforce_eager is None else self.options.enforce_eager,
            "seed": 0,
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
        } | prefix_sharing()
        if self.options.max_num_seqs is not None:
            arguments["max_num_seqs"] = self.options.max_num_seqs
        if is_cpu():
            # A seeded request whose prefill is cut in pieces kills vLLM's CPU engine (its random generators cannot be
            # wound back). Whole prompts always fit into a batch of this size.
            arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(4096, longest)}
        else:
            arguments["gpu_memory_utilization"] = self.options.gpu_memory_utilization
        return arguments | dict(self.options.extra)

    def parts(self, request: Request) -> list[tuple[Request, bool]]:
        """A request, cut where the samples end whose log-probabilities are wanted (True)."""
        first, end, boundary = request.first, request.first + request.count, self.entropy_samples
        if first >= boundary or end <= boundary:
            return [(request, end <= boundary)]
        head = replace(request, count=boundary - first)
        tail = replace(request, first=boundary, count=end - boundary, seed=request.seed + boundary - first)
        return [(head, True), (tail, False)]


class Engines:
    """Running vLLM engines of one sampler, each a Ray actor."""

    def __init__(self, sampler: VllmSampler) -> None:
        self._sampler = sampler
        self._actors: list[Any] = []

    def __enter__(self) -> Engines:
        import ray

        self._started_ray = _start_ray()
        try:
            self._actors = [self._start() for _ in range(self._count())]
            self._capacities = ray.get([actor.capacity.remote() for actor in self._actors])
        except BaseException as error:
            self._end()
            if isinstance(error, ray.exceptions.RayError):
                raise EngineError(f"a vLLM engine did not start: {_reason(error)}") from error
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Sample]]:
        """Answer requests as they finish. Every engine's queue is kept a little longer than what it can hold at once.

        Raises:
            EngineError: an engine died.
        """
        import ray

        parts = [part for request in requests for part in self._sampler.parts(request)]
        # One sample with log-probabilities makes vLLM compute them for its whole batch: keep those together.
        waiting = deque(sorted(parts, key=lambda part: not part[1]))
        in_flight: dict[Any, tuple[int, int]] = {}  # the answer to come: its engine and number of samples
        room = [2 * capacity for capacity in self._capacities]
        while waiting or in_flight:
            while waiting and max(room) > 0:
                request, logprobs = waiting.popleft()
                engine = room.index(max(room))
                tokens = self._sampler.tokens[request.problem]
                answer = self._actors[engine].sample.remote(tokens, request, self._sampler.sampling, logprobs)
                in_flight[answer] = engine, request.count
                room[engine] -= request.count
            ready, _ = ray.wait(list(in_flight), num_returns=1)
            for answer in ready:
                engine, count = in_flight.pop(answer)
                room[engine] += count
                try:
                    yield ray.get(answer)
                except ray.exceptions.RayError as error:
                    raise EngineError(f"a vLLM engine failed: {_reason(error)}") from error

    def _count(self) -> int:
        import ray

        options = self._sampler.options
        if options.engines is not None or is_cpu():
            return options.engines or 1
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if gpus < options.tensor_parallel_size:
            raise EngineError(f"an engine needs {options.tensor_parallel_size} GPUs; Ray knows of {gpus}")
        return gpus // options.tensor_parallel_size

    def _start(self) -> Any:
        import ray

        env = environment() | {"PYTHONPATH": _python_path(), "VLLM_LOGGING_LEVEL": "ERROR"}
        if is_cpu():
            env["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // self._count()))
        remote = ray.remote(Engine).options(
            num_cpus=0 if is_cpu() else 1,
            num_gpus=0 if is_cpu() else self._sampler.options.tensor_parallel_size,
            max_concurrency=1000,
            runtime_env={"env_vars": env},
        )
        return remote.remote(self._sampler.engine_arguments())

    def _end(self) -> None:
        import ray

        for actor in self._actors:
            with suppress(ray.exceptions.RayError):
                ray.get(actor.close.remote(), timeout=30)
            ray.kill(actor)
        self._actors = []
        if self._started_ray:
            ray.shutdown()


class Engine:
    """The Ray actor around one vLLM engine.

    Not vLLM's ``AsyncLLM``: that has its core in a process of its own everywhere, and on a CPU a second import of vLLM
    takes as long as thousands of samples.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        from vllm import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        offline = UsageContext.LLM_CLASS  # vLLM's sizes for offline batches: twice as many samples at once as a server
        self._llm = LLMEngine.from_engine_args(EngineArgs(**arguments), usage_context=offline)
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._new: list[tuple[str, Any, Any]] = []  # requests that the engine has not got yet
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._at_work: asyncio.Task[None] | None = None

    async def capacity(self) -> int:
        """How many samples the engine works on at once."""
        return self._llm.vllm_config.scheduler_config.max_num_seqs

    async def sample(self, tokens: list[int], request: Request, sampling: Sampling, logprobs: bool) -> list[Sample]:
        """All samples of one request; those that vLLM aborted are left out."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            n=request.count,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_new_tokens,
            stop=list(sampling.stop),
            seed=request.seed,  # vLLM adds each sample's position
            logprobs=0 if logprobs else None,
            flat_logprobs=True,  # plain lists, not an object for every token
            detokenize=bool(sampling.stop),  # token by token only if it must look for stop strings
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt, name = TokensPrompt(prompt_token_ids=tokens), f"{request.problem}-{request.first}"
        answer = await self._answer(name, prompt, params)
        outputs = [output for output in answer.outputs if output.finish_reason in ("stop", "length")]
        texts = self._texts(outputs, sampling)
        return [
            Sample(
                problem=request.problem,
                index=request.first + output.index,
                completion=text,
                finish=str(output.finish_reason),
                tokens=len(output.token_ids),
                logprob=output.cumulative_logprob if logprobs else None,
            )
            for output, text in zip(outputs, texts, strict=True)
        ]

    async def _answer(self, name: str, prompt: Any, params: Any) -> Any:
        """vLLM's last output for a request. Raises what the engine raises, whichever request it was about."""
        self._answers[name] = asyncio.get_running_loop().create_future()
        self._new.append((name, prompt, params))
        if self._at_work is None or self._at_work.done():
            self._at_work = asyncio.create_task(self._work())
        return await self._answers[name]

    async def _work(self) -> None:
        try:
            while self._new or self._answers:
                for request in self._new:
                    self._llm.add_request(*request)
                self._new.clear()
                for output in await asyncio.to_thread(self._llm.step):
                    if output.finished:
                        self._answers.pop(output.request_id).set_result(output)
        except Exception as error:
            for answer in self._answers.values():
                answer.set_exception(error)
            self._answers.clear()
            self._new.clear()

    async def close(self) -> None:
        """End the engine's own processes."""
        self._llm.engine_core.shutdown()

    def _texts(self, outputs: Sequence[Any], sampling: Sampling) -> list[str]:
        if sampling.stop:
            return [output.text for output in outputs]
        return self._tokenizer.batch_decode([output.token_ids for output in outputs], skip_special_tokens=True)


def _start_ray() -> bool:
    """Connect to Ray, to a cluster of our own if none is named. Returns whether there was no connection before."""
    import ray

    if ray.is_initialized():
        return False
    for name, value in ray_environment().items():
        os.environ.setdefault(name, value)
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **ray_cluster())
    return True


def _python_path() -> str:
    """Lets workers import this package wherever they start."""
    package = str(Path(__file__).parents[3])
    return os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
