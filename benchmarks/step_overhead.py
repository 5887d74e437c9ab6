"""What max@k training costs over upstream: the learner's PPO update, and generation of groups.

    python benchmarks/step_overhead.py [--model FOLDER] [--rounds 7] [--shots 1]

Learner: OpenRLHF's own ``ActorPPOTrainer`` with ``group_norm`` advantages against ours with ``offpolicy_bon``,
on the same experience and the same DeepSpeed engine, in turn. Generation: one vLLM request a prompt with n samples
against n requests a prompt, as upstream sends them, to an engine with upstream's defaults and to ours, in turn. Prints
medians and ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openrlhf_maxk

PROMPTS, N, RESPONSE, MAX_LEN = 32, 8, 24, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", help="a Hugging Face folder (default: an untrained Qwen2 of the mini benchmark's size)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each")
    parser.add_argument("--shots", type=int, default=1, help="examples in each prompt: how long prompts are")
    parser.add_argument("--only", choices=("learner", "generation"))
    options = parser.parse_args()
    openrlhf_maxk.install()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or make_model(Path(folder) / "model")
        if options.only != "generation":
            upstream, ours = learner(model, folder, options.rounds)
            report("PPO update, 3 epochs x 2 optimizer steps", "group_norm", upstream, "offpolicy_bon", ours)
        if options.only != "learner":
            asyncio.run(generation(model, options.rounds, options.shots))


def report(title: str, first: str, first_seconds: list[float], second: str, second_seconds: list[float]) -> None:
    """Medians, and the median of the ratios round by round."""
    ratios = sorted(b / a for a, b in zip(first_seconds, second_seconds, strict=True))
    print(
        f"{title}: {first} {statistics.median(first_seconds):.3f} s, "
        f"{second} {statistics.median(second_seconds):.3f} s, "
        f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) over {len(ratios)} rounds"
    )


def make_model(folder: Path) -> str:
    """An untrained model of the mini benchmark's size."""
    import torch

    from openrlhf_maxk.problems.mini.base_model import ModelSettings, new_model, save_model
    from openrlhf_maxk.problems.mini.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    folder.mkdir()
    save_model(new_model(ModelSettings(), tokenizer, max_position_embeddings=1024), tokenizer, folder)
    return str(folder)


def learner(model: str, folder: str, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of upstream's and of our PPO update."""
    from learners import Learners, Rollout, alternate
    from transformers import AutoConfig

    learners = Learners.make(
        model,
        folder,
        *("--rollout.n_samples_per_prompt", str(N), "--rollout.batch_size", str(PROMPTS)),
        *("--train.batch_size", str(PROMPTS * N // 2), "--train.micro_batch_size", "64", "--train.max_epochs", "3"),
    )
    vocabulary = AutoConfig.from_pretrained(model).vocab_size
    rollout = Rollout(PROMPTS, N, prompt=20, shortest=8, longest=RESPONSE, vocabulary=vocabulary)

    def timed(update: Callable[[], Any]) -> float:
        started = time.perf_counter()
        update()
        return time.perf_counter() - started

    with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):  # progress bars
        return alternate(
            lambda: learners.update(learners.upstream, rollout, timed),
            lambda: learners.update(learners.ours, rollout, timed),
            rounds,
        )


@contextlib.contextmanager
def vllms_own_processes() -> Iterator[None]:
    """An engine that is made here keeps vLLM's default: its core is a process of its own."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    ours = os.environ.pop(name, None)
    try:
        yield
    finally:
        if ours is not None:
            os.environ[name] = ours


async def generation(model: str, rounds: int, shots: int) -> None:
    """Seconds for upstream's n requests a prompt, each tokenizing it, and for one request with n samples.

    There is an engine with upstream's defaults and one with ours, which shares the cache of a prompt. n requests are
    sent to both of them.
    """
    import vllm
    from openrlhf.utils.agent import SingleTurnAgentExecutor
    from transformers import AutoTokenizer

    from openrlhf_maxk.platform import prefix_sharing
    from openrlhf_maxk.rollout.engine import GroupRollout

    class Engine(GroupRollout):
        """The rollout actor without Ray around it."""

        def __init__(self, **arguments: Any) -> None:
            self._has_agent = False
            self.llm = vllm.AsyncLLMEngine.from_engine_args(
                vllm.AsyncEngineArgs(
                    model=model,
                    dtype="bfloat16",
                    max_model_len=MAX_LEN,
                    enforce_eager=True,
                    gpu_memory_utilization=0.1,
                    **arguments,
                )
            )

        async def generate(self, prompt_token_ids: list[int], params: Any, multi_modal_data: Any = None) -> Any:
            request = self.llm.generate(
                {"prompt_token_ids": prompt_token_ids}, params, request_id=vllm.utils.random_uuid()
            )
            return [output async for output in request][-1]

    tokenizer = AutoTokenizer.from_pretrained(model)
    upstream = SingleTurnAgentExecutor(None)
    params = vllm.SamplingParams(temperature=1.0, min_tokens=RESPONSE, max_tokens=RESPONSE)
    task = "given integers, evens, output the sum\n"
    examples = [f"in {i % 9} {i % 7} 3 4\nout {i % 5}\n" * shots for i in range(PROMPTS)]
    longest = max(len(tokenizer(text=task + text)["input_ids"]) for text in examples)
    print(f"prompts of up to {longest} tokens, {RESPONSE} new ones")

    async def separate(engine: Engine, prompts: list[str]) -> None:
        await asyncio.gather(
            *(upstream.execute(prompt, "", params, MAX_LEN, tokenizer, engine) for prompt in prompts for _ in range(N))
        )

    async def together(engine: Engine, prompts: list[str]) -> None:
        await asyncio.gather(
            *(engine.generate_responses(prompt, "", params, MAX_LEN, tokenizer, N) for prompt in prompts)
        )

    with vllms_own_processes():
        theirs = Engine(enable_prefix_caching=False)
    ours = Engine(**prefix_sharing())
    ways = [(separate, theirs), (separate, ours), (together, ours)]
    times: list[list[float]] = [[] for _ in ways]
    for i in range(rounds + 1):
        for place in range(len(ways)):
            way = (i + place) % len(ways)
            generate, engine = ways[way]
            prompts = [f"{i}{way} {task}{text}" for text in examples]  # no round finds another's prompts in the cache
            started = time.perf_counter()
            await generate(engine, prompts)
            if i:
                times[way].append(time.perf_counter() - started)
    theirs.llm.shutdown()
    ours.llm.shutdown()
    title = f"generation of {PROMPTS} x {N} samples"
    report(title, "n requests to upstream's engine", times[0], "one request", times[2])
    report(title, "n requests to the same engine", times[1], "one request", times[2])


if __name__ == "__main__":
    main()
