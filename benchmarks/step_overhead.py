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
import socket
import statistics
import sys
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


def alternate(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Time both in turn, after a round that does not count; who goes first changes every round."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds + 1):
        pair = [(0, first), (1, second)]
        for index, timed in pair if i % 2 else reversed(pair):
            seconds = timed()
            if i:
                times[index].append(seconds)
    return times


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
    from openrlhf_maxk.cli.train import parse
    from openrlhf_maxk.upstream import seams

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}
    os.environ["LOCAL_RANK"] = "0"
    data = Path(folder, "data.jsonl")
    data.write_text('{"input": "x"}\n')
    _, args = parse(
        [
            *("--actor.model_name_or_path", model, "--data.prompt_dataset", str(data)),
            *("--reward.remote_url", "http://unused", "--rollout.n_samples_per_prompt", str(N)),
            *("--rollout.batch_size", str(PROMPTS), "--train.batch_size", str(PROMPTS * N // 2)),
            *("--train.micro_batch_size", "64", "--train.max_epochs", "3", "--actor.adam.lr", "1e-6"),
            *("--algo.kl.use_loss", "--algo.kl.estimator", "k3"),
            *("--ckpt.output_dir", folder, "--ckpt.path", folder),
        ]
    )
    args.actor.eps_clip_low_high = (0.2, 0.2)
    from openrlhf.trainer.ray import ppo_actor
    from openrlhf.utils import get_strategy

    strategy = get_strategy(args)
    actor_class = ppo_actor.PolicyModelActor.__ray_metadata__.modified_class
    policy = actor_class.__new__(actor_class)
    policy.init_model_from_pretrained(strategy, model, max_steps=10_000, vllm_engines=None)
    ours = policy.trainer
    ppo_actor.NaiveReplayBuffer = upstream_buffer(seams.original("openrlhf.trainer.ray.ppo_actor:NaiveReplayBuffer"))
    upstream_class = seams.original("openrlhf.trainer.ray.ppo_actor:ActorPPOTrainer")
    upstream = upstream_class(
        strategy,
        policy.actor,
        ema_model=None,
        actor_optim=policy.actor_optim,
        actor_scheduler=policy.actor_scheduler,
        micro_train_batch_size=args.train.micro_batch_size,
        tokenizer=policy.tokenizer,
        vllm_engines=None,
    )

    def timed(trainer: Any, estimator: str) -> float:
        for batch in experience(policy, args, estimator):
            trainer.replay_buffer.append(batch)
        started = time.perf_counter()
        trainer.ppo_train(0.01)
        seconds = time.perf_counter() - started
        trainer.replay_buffer.clear()
        return seconds

    with open(os.devnull, "w") as quiet:
        stderr, sys.stderr = sys.stderr, quiet  # progress bars
        try:
            return alternate(lambda: timed(upstream, "group_norm"), lambda: timed(ours, "maxk"), rounds)
        finally:
            sys.stderr = stderr


def upstream_buffer(naive: Any) -> Any:
    """Upstream's buffer, made without asking for a CUDA device."""
    import torch

    class CPUBuffer(naive):
        def __init__(self, sample_batch_size: int, *_: Any) -> None:
            self.sample_batch_size = sample_batch_size
            self.limit, self.cpu_offload, self.packing_samples, self.dynamic_batch = 0, True, False, False
            self.target_device = torch.device(torch.cuda.current_device())
            self.items = []

    return naive if torch.cuda.is_available() else CPUBuffer


def experience(policy: Any, args: Any, estimator: str) -> list[Any]:
    """The same random experience every time, with either kind of advantages."""
    import torch
    from openrlhf.trainer.ppo_utils.experience import Experience

    from openrlhf_maxk.experience.advantages import group_advantages
    from openrlhf_maxk.experience.group import GROUP, SEQUENCE_ADVANTAGE, K
    from openrlhf_maxk.options.maxk import options_of

    random = torch.Generator().manual_seed(0)
    rows = PROMPTS * N
    sequences = torch.randint(4, len(policy.tokenizer), (rows, 20 + RESPONSE), generator=random)
    lengths = torch.randint(8, RESPONSE + 1, (rows,), generator=random)
    position = torch.arange(20 + RESPONSE - 1)
    action_mask = (position >= 19) & (position < 19 + lengths[:, None])
    attention_mask = (torch.arange(20 + RESPONSE) < 20 + lengths[:, None]).long()
    rewards = torch.randint(0, 9, (rows,), generator=random) / 8
    groups, ks = torch.arange(rows) // N, torch.full((rows,), N // 2)
    if estimator == "maxk":
        values = group_advantages(groups, rewards, None, ks, options_of(args)).values
    else:
        grouped = rewards.view(PROMPTS, N)
        values = ((grouped - grouped.mean(-1, keepdim=True)) / (grouped.std(-1, keepdim=True) + 1e-9)).view(-1)
    log_probs = policy.forward(sequences, action_mask, attention_mask)
    batches = []
    for part in torch.arange(rows).split(64):
        info = {"reward": rewards[part]}
        if estimator == "maxk":
            info |= {GROUP: groups[part], K: ks[part], SEQUENCE_ADVANTAGE: values[part]}
        batches.append(
            Experience(
                sequences=sequences[part],
                attention_mask=attention_mask[part],
                action_mask=action_mask[part],
                action_log_probs=log_probs[part],
                base_action_log_probs=log_probs[part],
                advantages=values[part, None] * action_mask[part],
                returns=values[part, None] * action_mask[part],
                rewards=rewards[part],
                response_length=lengths[part],
                truncated=torch.zeros(len(part)),
                total_length=20.0 + lengths[part],
                info=info,
            )
        )
    return batches


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
