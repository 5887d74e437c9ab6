"""Which loss to train with: the embedded benchmark without Ray, vLLM and DeepSpeed, many settings in a row.

    python -m openrlhf_maxk.cli.mini --out outputs/mini
    python benchmarks/losses.py outputs/mini --out outputs/losses.jsonl [--losses ppo score …] [--seeds 0 1 2] …

Each run takes the project's own objective, loss and aggregation (``GroupPolicyLoss``) through 20 steps of 32 prompts
with 8 completions, sampled by transformers in this process and judged by running the programs, then measures the model
on the validation split. A run that the file has already is not made again. Prints one line a setting: mean over seeds,
with the standard deviation of max@8.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

import openrlhf_maxk

openrlhf_maxk.install()  # OpenRLHF can be imported on CPU only behind the seams

from openrlhf.models.loss import PolicyLoss  # noqa: E402

from openrlhf_maxk.experience.advantages import group_advantages  # noqa: E402
from openrlhf_maxk.learner.batch import GroupBatch  # noqa: E402
from openrlhf_maxk.learner.loss import GroupPolicyLoss  # noqa: E402
from openrlhf_maxk.objectives import max_at_k, pass_at_k  # noqa: E402
from openrlhf_maxk.options.maxk import MaxKOptions  # noqa: E402
from openrlhf_maxk.problems.record import Problem  # noqa: E402
from openrlhf_maxk.problems.store import ProblemStore  # noqa: E402

PROMPTS, N, K, STEPS, NEW_TOKENS = 32, 8, 4, 20, 40
GROUPS_A_STEP, KL, EVALUATED = 16, 0.01, 32
SHOWN = (1, 4, 8, 32)
SETTING = ("seed", "epochs", "rate", "objective", "loss", "baseline", "aggregate", "eps_clip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mini", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--objectives", nargs="+", default=["offpolicy_bon"])
    parser.add_argument("--losses", nargs="+", default=["ppo", "sequence_clip", "score"])
    parser.add_argument("--baselines", nargs="+", default=["marginal", "leave_one_out"])
    parser.add_argument("--aggregates", nargs="+", default=["constant"])
    parser.add_argument("--eps-clips", type=float, nargs="+", default=[0.2])
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 5e-5])
    parser.add_argument("--epochs", type=int, nargs="+", default=[10, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", default="0/1", help="of several processes, which one this is: 0/2, 1/2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = [
        dict(zip(SETTING, values, strict=True))
        for values in itertools.product(
            options.seeds,
            options.epochs,
            options.rates,
            options.objectives,
            options.losses,
            options.baselines,
            options.aggregates,
            options.eps_clips,
        )
    ]
    part, parts = map(int, options.part.split("/"))
    benchmark = Benchmark(options.mini)
    for setting in settings[part::parts]:
        done = [json.loads(line)["setting"] for line in options.out.open()] if options.out.exists() else []
        if setting not in done:
            record = {"setting": setting, **benchmark.run(**setting)}
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")
    table([json.loads(line) for line in options.out.open()], settings)


def table(records: list[dict[str, Any]], settings: list[dict[str, Any]]) -> None:
    """One Markdown row a setting."""
    by_setting = defaultdict(list)
    for record in records:
        if record["setting"] in settings:
            by_setting[tuple(list(record["setting"].items())[1:])].append(record)
    names = [*(f"max@{k}" for k in SHOWN), "pass@1", "pass@32", "entropy", "ess", "clipped"]
    print(f"| {', '.join(SETTING[1:])} | seeds | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 2) + "|")
    for key, same in by_setting.items():
        cells = [f"{statistics.mean(record[name] for record in same):.3f}" for name in names]
        if len(same) > 1:
            cells[names.index("max@8")] += f" ± {statistics.stdev(record['max@8'] for record in same):.3f}"
        print(f"| {', '.join(str(value) for _, value in key)} | {len(same)} | " + " | ".join(cells) + " |")


@lru_cache(maxsize=2**20)
def reward(program: str, tests: tuple[tuple[str, str], ...]) -> float:
    """The share of tests passed. The benchmark's vocabulary has no word that could harm this process."""
    try:
        code = compile(program, "program", "exec")
    except (SyntaxError, ValueError):
        return 0.0
    passed = 0
    for given, wanted in tests:
        lines: list[str] = []
        names = {
            "input": lambda given=given: given,
            "print": lambda *v, lines=lines: lines.append(" ".join(map(str, v))),
        }
        try:
            exec(code, names)
        except Exception:
            continue
        passed += "\n".join(lines).split() == wanted.split()
    return passed / len(tests)


class Benchmark:
    """Base model and problems, read once."""

    def __init__(self, folder: Path) -> None:
        self.model_folder = folder / "base_model"
        self.tokenizer = AutoTokenizer.from_pretrained(self.model_folder)
        self.pad, self.eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        store = ProblemStore(folder / "problems")
        self.train, self.validation = (
            [(row["input"], store[row["label"]]) for row in map(json.loads, (folder / "problems" / file).open())]
            for file in ("train.jsonl", "validation.jsonl")
        )
        self.reference = self.load()

    def load(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.model_folder, dtype=torch.float32, attn_implementation="sdpa")

    def run(
        self, seed: int, epochs: int, rate: float, objective: str, eps_clip: float, **maxk: Any
    ) -> dict[str, float]:
        """Train with one setting, then measure."""
        started = time.perf_counter()
        torch.manual_seed(seed)
        options = MaxKOptions.make(objective=objective, k=K, **maxk)
        model = self.load()
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
        loss_fn = GroupPolicyLoss(PolicyLoss(eps_clip, eps_clip), options)
        order = torch.randperm(len(self.train)).tolist()
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for step in range(STEPS):
            problems = [self.train[i] for i in order[step * PROMPTS : (step + 1) * PROMPTS]]
            rollout = self.rollout(model, problems)
            self.update(model, optimizer, loss_fn, rollout, epochs, sums)
        means = {name: total / weight for name, (total, weight) in sums.items()}
        return {
            **self.measure(model),
            "ess": means["ratio_ess"],
            "clipped": means["clipped_positive"] + means["clipped_negative"],
            "seconds": time.perf_counter() - started,
        }

    @torch.no_grad()
    def sample(self, model: Any, problems: list[tuple[str, Problem]], n: int) -> tuple[torch.Tensor, ...]:
        """Right-padded prompts and completions, token ids (B, T), and the mask of action tokens, (B, T)."""
        prompts = [torch.tensor(self.tokenizer(text)["input_ids"]) for text, _ in problems for _ in range(n)]
        left = pad_sequence([p.flip(0) for p in prompts], batch_first=True, padding_value=self.pad).flip(1)
        out = model.generate(
            input_ids=left,
            attention_mask=(left != self.pad).long(),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=self.pad,
            eos_token_id=self.eos,
        )[:, left.shape[1] :]
        ended = (out == self.eos).cumsum(1)
        kept = (ended == 0) | ((out == self.eos) & (ended == 1))
        rows = [torch.cat([prompt, row[keep]]) for prompt, row, keep in zip(prompts, out, kept, strict=True)]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad)
        position = torch.arange(ids.shape[1])
        starts = torch.tensor([len(prompt) for prompt in prompts])[:, None]
        ends = torch.tensor([len(row) for row in rows])[:, None]
        return ids, (position >= starts) & (position < ends)

    def judged(
        self, ids: torch.Tensor, mask: torch.Tensor, problems: list[tuple[str, Problem]], n: int
    ) -> torch.Tensor:
        """The rewards, (problems, n)."""
        texts = [
            self.tokenizer.decode(row[keep], skip_special_tokens=True) for row, keep in zip(ids, mask, strict=True)
        ]
        tests = [
            tuple((test.input, test.output) for test in problem.tests) for _, problem in problems for _ in range(n)
        ]
        return torch.tensor([reward(t, s) for t, s in zip(texts, tests, strict=True)]).reshape(len(problems), n)

    def log_probs(self, model: Any, ids: torch.Tensor) -> torch.Tensor:
        """Of all tokens but the first, (B, T − 1); padding is on the right, where causal attention never looks from."""
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return -torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")

    def rollout(self, model: Any, problems: list[tuple[str, Problem]]) -> dict[str, torch.Tensor]:
        ids, mask = self.sample(model, problems, N)
        rewards = self.judged(ids, mask, problems, N).flatten()
        with torch.no_grad():
            old, base = self.log_probs(model, ids), self.log_probs(self.reference, ids)
        groups = torch.arange(len(problems)).repeat_interleave(N)
        return {"ids": ids, "mask": mask[:, 1:].float(), "rewards": rewards, "old": old, "base": base, "groups": groups}

    def update(
        self,
        model: Any,
        optimizer: Any,
        loss_fn: GroupPolicyLoss,
        rollout: dict[str, torch.Tensor],
        epochs: int,
        sums: Any,
    ) -> None:
        """PPO epochs over optimizer steps of whole groups."""
        ks = torch.full_like(rollout["groups"], K)
        start = group_advantages(rollout["groups"], rollout["rewards"], None, ks, loss_fn.options).values
        for epoch in range(epochs):
            for index, chosen in enumerate(torch.randperm(PROMPTS).split(GROUPS_A_STEP)):
                rows = (chosen[:, None] * N + torch.arange(N)).flatten()
                ids, mask, old, base = (rollout[name][rows] for name in ("ids", "mask", "old", "base"))
                loss_fn.batch = GroupBatch(rollout["groups"][rows], rollout["rewards"][rows], ks[rows], start[rows])
                loss_fn.computed, loss_fn.policy_is_behaviour = None, epoch == index == 0
                now = self.log_probs(model, ids)
                tokens = len(rows) * NEW_TOKENS if loss_fn.options.aggregate == "constant" else mask.sum()
                loss, *_ = loss_fn(now, old, start[rows, None] * mask, mask, batch_num_tokens=tokens)
                difference = base - now
                kl = ((difference.exp() - 1 - difference) * mask).sum() / tokens
                optimizer.zero_grad()
                (loss + KL * kl).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                assert loss_fn.computed is not None
                for name, (total, count) in {**loss_fn.computed.sums, **loss_fn.silenced}.items():
                    sums[name][0] += total
                    sums[name][1] += count

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, float]:
        """On the validation split, with the same random numbers for every model."""
        torch.manual_seed(12345)
        rewards, surprise, tokens = [], 0.0, 0.0
        for start in range(0, len(self.validation), 8):
            problems = self.validation[start : start + 8]
            ids, mask = self.sample(model, problems, EVALUATED)
            rewards.append(self.judged(ids, mask, problems, EVALUATED))
            surprise -= float((self.log_probs(model, ids) * mask[:, 1:]).sum())
            tokens += float(mask.sum())
        table = torch.cat(rewards)
        return {
            **{f"max@{k}": float(max_at_k(table, k).mean()) for k in SHOWN},
            **{f"pass@{k}": float(pass_at_k((table >= 1).float(), k).mean()) for k in SHOWN},
            "entropy": surprise / tokens,
        }


if __name__ == "__main__":
    main()
