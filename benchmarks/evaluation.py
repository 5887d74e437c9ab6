"""How fast evaluation is.

    python benchmarks/evaluation.py generation --model DIR --problems DIR   against vLLM's own offline batch
    python benchmarks/evaluation.py scoring                                 256 samples of 200 problems, made elsewhere

``generation`` keeps our engine and vLLM's ``LLM`` alive side by side and lets them take turns on the same prompts with
the same sampling settings and seeds, so that a change in the machine's load meets both. Ours also asks for some
log-probabilities, as ``cli.evaluate`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path


def generation(options: argparse.Namespace) -> None:
    from openrlhf_maxk.platform import environment

    os.environ.update(environment())
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    from openrlhf_maxk.evaluation.samples.model import find_model
    from openrlhf_maxk.evaluation.samples.problem_set import load_problem_set
    from openrlhf_maxk.evaluation.samples.records import Sampling, missing_requests
    from openrlhf_maxk.evaluation.samples.vllm_sampler import EngineOptions, Engines, VllmSampler

    model = find_model(options.model)
    tokenizer = model.tokenizer()
    prompts = load_problem_set(options.problems, options.split).first(options.count).prompts()
    tokens = {name: tokenizer(text, add_special_tokens=False)["input_ids"] for name, text in prompts.items()}
    sampling = Sampling(max_new_tokens=options.max_new_tokens)
    sampler = VllmSampler(model, sampling, tokens, EngineOptions(), options.entropy_samples)
    theirs: list[float] = []
    ours: list[float] = []
    with Engines(sampler) as engines:
        os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # vLLM's own way of running
        llm = LLM(**sampler.engine_arguments())
        params = SamplingParams(
            n=options.samples, temperature=1.0, top_p=1.0, max_tokens=sampling.max_new_tokens, logprobs=None
        )
        for turn in range(options.turns + 1):
            requests = missing_requests(prompts, {}, dict.fromkeys(prompts, options.samples), turn, per_request=64)
            start = time.perf_counter()
            count = sum(sample.tokens for batch in engines.sample(requests) for sample in batch)
            our_rate = count / (time.perf_counter() - start)
            start = time.perf_counter()
            params.seed = None if options.unseeded else turn
            batch = llm.generate([TokensPrompt(prompt_token_ids=t) for t in tokens.values()], params, use_tqdm=False)
            count = sum(len(output.token_ids) for result in batch for output in result.outputs)
            their_rate = count / (time.perf_counter() - start)
            if turn:  # the first turn warms up
                ours.append(our_rate)
                theirs.append(their_rate)
                print(f"turn {turn}: ours {our_rate:,.0f}, LLM.generate {their_rate:,.0f} tokens/s", flush=True)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(
            f"{len(prompts)} problems x {options.samples} samples on {environment().get('OMP_NUM_THREADS', '?')} cores"
        )
        print(f"ours / LLM.generate: {ratio:.2f} (median of {options.turns} turns)")


def scoring(options: argparse.Namespace) -> None:
    """Time and memory from another project's JSONL, executed, to scores; linear in the number of samples."""
    for samples in (options.samples // 4, options.samples):
        command = [sys.executable, __file__, "score-once", "--problems", str(options.count), "--samples", str(samples)]
        subprocess.run(command, check=True)


def score_once(options: argparse.Namespace) -> None:
    from openrlhf_maxk.evaluation.pipeline import Plan, write_scores
    from openrlhf_maxk.evaluation.samples.completions import CompletionsFile
    from openrlhf_maxk.evaluation.samples.generate import generate
    from openrlhf_maxk.evaluation.samples.problem_set import load_problem_set
    from openrlhf_maxk.evaluation.samples.records import Sampling
    from openrlhf_maxk.evaluation.samples.run_folder import RunFolder
    from openrlhf_maxk.evaluation.scoring.execute import execute
    from openrlhf_maxk.evaluation.scoring.score import score
    from openrlhf_maxk.problems.record import Problem, Test
    from openrlhf_maxk.problems.store import write_problems
    from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
    from openrlhf_maxk.rewards.scoring.health import Health

    rng = random.Random(0)
    verdicts = [Verdict.PASSED, Verdict.WRONG, Verdict.CRASHED, Verdict.CPU_TIMEOUT]

    class Runner:
        """Chance in the place of execution, which is not what is timed."""

        def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
            tests = (TestResult(rng.choice(verdicts), 0.01, output=rng.randbytes(8)) for _ in problem.tests)
            future: Future[ProgramResult] = Future()
            future.set_result(ProgramResult(tuple(tests)))
            return future

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        tests = tuple(Test(str(t), str(t)) for t in range(20))
        toy = Problem("p0", "?", tests, public_tests=3, source="toy")
        write_problems(base / "problems", (replace(toy, id=f"p{i}") for i in range(options.problems)))
        with open(base / "samples.jsonl", "w") as file:
            for i in range(options.problems):
                for _ in range(options.samples):
                    text = "".join(f"x{j} = {rng.random()}\n" for j in range(25))
                    file.write(json.dumps({"problem": f"p{i}", "completion": text}) + "\n")
        problems = load_problem_set(base / "problems")
        source = CompletionsFile.open(base / "samples.jsonl", problems)
        plan = Plan("toy", problems, problems.prompts(), source, Sampling(), options.samples)
        run = RunFolder.create(base / "runs", plan.name, plan.key(), plan.prompts, {})
        generate(run, source, plan.prompts, options.samples, 0)
        execute(run, problems, Runner(), lambda completion: completion, options.samples)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        scores = score(run, problems, options.samples, Health())
        read = time.perf_counter() - start
        write_scores(run, scores, plan)
        total = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{options.problems} problems x {options.samples} samples x 20 tests: scored in {total:.1f} s "
            f"(reading the logs {read:.1f} s); peak memory {peak:,.0f} MiB, before scoring {before:,.0f} MiB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("generation")
    command.add_argument("--model", required=True)
    command.add_argument("--problems", required=True)
    command.add_argument("--split", default="test")
    command.add_argument("--count", type=int, default=32, help="problems")
    command.add_argument("--samples", type=int, default=128, help="samples a problem")
    command.add_argument("--max-new-tokens", type=int, default=32)
    command.add_argument("--entropy-samples", type=int, default=8, help="samples a problem with log-probabilities")
    command.add_argument("--turns", type=int, default=5)
    command.add_argument("--unseeded", action="store_true", help="give vLLM's own batch no seeds, to other samples")
    command.set_defaults(run=generation)
    command = commands.add_parser("scoring")
    command.add_argument("--count", type=int, default=200, help="problems")
    command.add_argument("--samples", type=int, default=256, help="samples a problem")
    command.set_defaults(run=scoring)
    command = commands.add_parser("score-once")
    command.add_argument("--problems", type=int, required=True)
    command.add_argument("--samples", type=int, required=True)
    command.set_defaults(run=score_once)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
