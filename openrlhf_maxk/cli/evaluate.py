"""``python -m openrlhf_maxk.cli.evaluate --model MODEL --problems DIR --samples 64 --out DIR``: pass@k and max@k.

Samples are generated (or read from ``--completions``, or asked of ``--endpoint``), their programs run, and scores
estimated. Everything is kept under ``--out``: the same command goes on where it was stopped, more ``--samples`` add to
those there are, and other settings begin a folder of their own. docs/evaluation.md tells what is in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openrlhf_maxk.cli.common import positive, reason
from openrlhf_maxk.evaluation.samples.records import Sampling
from openrlhf_maxk.platform import evaluation_dtype

if TYPE_CHECKING:
    from openrlhf_maxk.evaluation.pipeline import Evaluation, Plan
    from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 for complete scores, 1 for an error, 2 for wrong options, 130 when interrupted."""
    options = parse(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, to their developers
    errors = known_errors()
    plan = None
    try:
        plan = make_plan(options)
        print(
            f"{plan.name}: {len(plan.problems)} problems of {options.problems}, "
            f"{plan.samples} samples each, max@k and pass@k"
        )
        evaluation = run_plan(plan, options)
        written = results_for(options.results_for, plan, evaluation)
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {reason(error)}{'. What was done is kept' if plan else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    report(plan, evaluation)
    for path in written:
        print(f"for other tools: {path}")
    return 0


def make_plan(options: argparse.Namespace) -> Plan:
    """What the options ask for; everything that can be wrong with it is found here, before anything starts."""
    from openrlhf_maxk import __version__
    from openrlhf_maxk.evaluation.pipeline import Plan
    from openrlhf_maxk.evaluation.samples.problem_set import load_problem_set

    sampling = Sampling(
        options.temperature,
        options.top_p,
        options.top_k,
        options.max_new_tokens,
        tuple(options.stop or ()),
        options.seed,
    )
    problems = load_problem_set(options.problems, options.split)
    if options.limit is not None:
        problems = problems.first(options.limit)
    ks = None if options.k is None else np.asarray(sorted(set(options.k)), dtype=np.int64)
    name, prompts, sampler, samples, problems = _source(options)(options, problems, sampling)
    about = {
        "problems": str(Path(options.problems).resolve()),
        "split": options.split,
        "model": options.model,
        "completions": options.completions,
        "ids": options.ids,
        "openrlhf_maxk": __version__,
    }
    return Plan(
        name=options.name or name,
        problems=problems,
        prompts=prompts,
        sampler=sampler,
        sampling=sampling,
        samples=samples,
        ks=ks,
        max_unscored=options.max_unscored,
        modules=tuple(options.modules),
        about=about,
    )


def run_plan(plan: Plan, options: argparse.Namespace) -> Evaluation:
    """Carry it out, with what ``--runner`` names running the programs."""
    from openrlhf_maxk.evaluation.pipeline import evaluate
    from openrlhf_maxk.rewards.execution.backends import open_runner
    from openrlhf_maxk.rewards.scoring.extraction import extract_program

    cores = options.cores or len(os.sched_getaffinity(0))
    runner = partial(open_runner, options.runner, cores, modules=options.modules, unsafe=options.unsafe)
    return evaluate(plan, options.out, runner, extract_program)


def results_for(tools: Sequence[str], plan: Plan, evaluation: Evaluation) -> list[Path]:
    """Write the results as other tools write theirs; returns the files."""
    from openrlhf_maxk.evaluation.scoring.foreign_results import write_results
    from openrlhf_maxk.rewards.scoring.extraction import extract_program

    return write_results(evaluation.run, plan.problems, plan.samples, tools, extract_program)


def report(plan: Plan, evaluation: Evaluation) -> None:
    """Print the health of the samples, the tables, and where everything is."""
    from openrlhf_maxk.evaluation.reports.tables import print_tables

    print(*evaluation.health.lines(), sep="\n")
    print_tables({plan.name: evaluation.scores}, plan.ks)
    if evaluation.execution.failed:
        print(
            f"{evaluation.execution.failed} programs could not be run and are left out; the same command tries them "
            f"again. Examples: {'; '.join(evaluation.execution.examples)}"
        )
    print(f"saved in {evaluation.run.path}")


def _source(options: argparse.Namespace) -> Callable[..., tuple]:
    if options.completions is not None:
        return _from_file
    return _from_endpoint if options.endpoint is not None else _from_model


def _from_model(options: argparse.Namespace, problems: ProblemSet, sampling: Sampling) -> tuple:
    from openrlhf_maxk.evaluation.samples.model import ModelError, find_model
    from openrlhf_maxk.evaluation.samples.vllm_sampler import EngineOptions, VllmSampler

    model = find_model(options.model, options.revision)
    tokenizer = model.tokenizer()
    chat = None
    if options.chat_template != "never" and options.prompt_template is None:
        if tokenizer.chat_template is not None:
            chat = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
        elif options.chat_template == "always":
            raise ModelError(f"the tokenizer of {model.name} has no chat template (--chat-template always)")
    prompts = problems.prompts(chat, options.prompt_template)
    tokens = {problem: tokenizer(text, add_special_tokens=False)["input_ids"] for problem, text in prompts.items()}
    _check_lengths(tokens, sampling.max_new_tokens, model.context())
    engine = EngineOptions(
        engines=options.engines,
        tensor_parallel_size=options.tensor_parallel_size,
        dtype=options.dtype,
        gpu_memory_utilization=options.gpu_memory_utilization,
        max_num_seqs=options.max_num_seqs,
    )
    sampler = VllmSampler(model, sampling, tokens, engine, options.entropy_samples)
    return Path(options.model).name, prompts, sampler, options.samples or 64, problems


def _check_lengths(tokens: dict[str, list[int]], new_tokens: int, context: int | None) -> None:
    from openrlhf_maxk.evaluation.samples.problem_set import ProblemSetError

    empty = [problem for problem, prompt in tokens.items() if not prompt]
    if empty:
        raise ProblemSetError(f"the prompt of problem {empty[0]!r} is empty")
    long = [problem for problem, prompt in tokens.items() if context and len(prompt) + new_tokens > context]
    if long:
        raise ProblemSetError(
            f"{len(long)} prompts leave no room for {new_tokens} new tokens in the model's context of {context}, the "
            f"first of them {long[0]!r} with {len(tokens[long[0]])} tokens: lower --max-new-tokens, or leave them out"
        )


def _from_file(options: argparse.Namespace, problems: ProblemSet, sampling: Sampling) -> tuple:
    from openrlhf_maxk.evaluation.samples.completions import CompletionsFile
    from openrlhf_maxk.evaluation.samples.files.formats import Fields
    from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet, ProblemSetError, load_problem_set

    fields = Fields(options.id_field, options.completion_field)
    order = None if options.limit is None else load_problem_set(options.problems, options.split).ids
    source = CompletionsFile.open(options.completions, problems, fields, ids=options.ids, order=order)
    print("\n".join(source.report()))
    missing = source.missing()
    if missing and not options.only_given:
        raise ProblemSetError(
            f"{options.completions} has no completion of {len(missing)} of {len(problems)} problems, the first of them "
            f"{missing[0]!r}: choose the problems with --split, or evaluate on the others with --only-given"
        )
    given = {problem: text for problem, text in problems.inputs.items() if source.counts[problem]}
    problems = ProblemSet(problems.problems, given)
    fewest, most = min(source.counts[p] for p in given), max(source.counts[p] for p in given)
    if options.samples is not None and options.samples > fewest:
        raise ProblemSetError(f"--samples {options.samples}: some problem has only {fewest} completions")
    name = Path(options.completions).stem
    return name, dict.fromkeys(given, ""), source, options.samples or most, problems


def _from_endpoint(options: argparse.Namespace, problems: ProblemSet, sampling: Sampling) -> tuple:
    import json

    from openrlhf_maxk.evaluation.samples.endpoint import EndpointError, EndpointSampler

    if options.model is None:
        raise EndpointError("--endpoint needs --model, the name that the endpoint knows the model by")
    chat = options.chat_template != "never" and options.prompt_template is None
    if chat:
        prompts = {p: text if isinstance(text, str) else json.dumps(text) for p, text in problems.inputs.items()}
    else:
        prompts = problems.prompts(None, options.prompt_template)
    sampler = EndpointSampler(
        options.endpoint, options.model, sampling, problems.inputs, chat, options.concurrency, options.retries
    )
    return options.model, prompts, sampler, options.samples or 64, problems


def known_errors() -> tuple[type[Exception], ...]:
    """Errors whose message says all that is needed."""
    from openrlhf_maxk.evaluation.pipeline import UnscoredError
    from openrlhf_maxk.evaluation.samples.endpoint import EndpointError
    from openrlhf_maxk.evaluation.samples.generate import IncompleteError
    from openrlhf_maxk.evaluation.samples.log import LogError
    from openrlhf_maxk.evaluation.samples.model import ModelError
    from openrlhf_maxk.evaluation.samples.run_folder import RunFolderError
    from openrlhf_maxk.evaluation.samples.vllm_sampler import EngineError
    from openrlhf_maxk.problems.store import StoreError
    from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError

    return (
        *(EndpointError, IncompleteError, LogError, ModelError, UnscoredError, RunFolderError, EngineError),
        *(StoreError, SandboxUnavailableError, ValueError),
    )


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.cli.evaluate", description=__doc__)
    parser.add_argument("--problems", required=True, help="folder of prepared problems")
    parser.add_argument("--split", help="the split to evaluate on (all problems)")
    parser.add_argument("--limit", type=positive, help="only the first so many problems")
    parser.add_argument("--out", required=True, help="folder of evaluations")
    parser.add_argument("--name", help="what tables call it (the model's name)")
    parser.add_argument("--samples", type=positive, help="samples of each problem (64; all that a file has)")
    parser.add_argument("--k", type=positive, nargs="+", help="values of k to report (1, 2, 4, ... samples)")
    parser.add_argument(
        "--results-for",
        nargs="+",
        choices=("evalplus", "livecodebench"),
        default=[],
        help="write the results as these tools write theirs as well",
    )

    group = parser.add_argument_group("where samples come from (--model, --completions, or --endpoint with --model)")
    group.add_argument("--model", help="Hugging Face folder, or a model of the hub")
    group.add_argument("--revision", help="of a model of the hub")
    group.add_argument(
        "--completions",
        help="samples made elsewhere, in any format of docs/evaluation.md: such as JSON lines of a problem's id and a "
        "completion, or what evalplus, LiveCodeBench, lm-eval, lighteval, inspect and verl write",
    )
    group.add_argument("--id-field", help="its field of the problem's id (a.b: field b of the object a)")
    group.add_argument("--completion-field", help="its field of the completion, or list of completions")
    group.add_argument("--ids", help="file of problem ids, in the order in which a file without ids has its problems")
    group.add_argument("--only-given", action="store_true", help="leave out problems that the file does not have")
    group.add_argument("--endpoint", help="URL of an OpenAI-compatible service (key: OPENAI_API_KEY)")
    group.add_argument("--concurrency", type=positive, default=32, help="requests to it at once")
    group.add_argument("--retries", type=int, default=6, help="of a request that fails")

    group = parser.add_argument_group("sampling (the paper's settings unless given)")
    group.add_argument("--temperature", type=float, default=1.0)
    group.add_argument("--top-p", type=float, default=1.0)
    group.add_argument("--top-k", type=int, default=0, help="0: all tokens")
    group.add_argument("--max-new-tokens", type=positive, default=256)
    group.add_argument("--stop", nargs="+", help="texts that end a completion")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--chat-template", choices=("auto", "always", "never"), default="auto")
    group.add_argument("--prompt-template", help="text with {} in the place of the problem's text")
    group.add_argument(
        "--entropy-samples", type=int, default=8, help="samples of each problem that token entropy is taken from"
    )

    group = parser.add_argument_group("machines")
    group.add_argument("--engines", type=positive, help="vLLM engines (as many as there are GPUs for)")
    group.add_argument("--tensor-parallel-size", type=positive, default=1, help="GPUs an engine")
    group.add_argument(
        "--dtype", default=evaluation_dtype(), help="of the engine; auto: the model's (auto; on CPU float32)"
    )
    group.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    group.add_argument("--max-num-seqs", type=positive, help="samples that an engine works on at once (vLLM's choice)")
    group.add_argument("--cores", type=positive, help="cores that run programs (all)")
    group.add_argument(
        "--runner", default="sandbox", help="what runs programs: sandbox, bubblewrap, or a service's URL"
    )
    group.add_argument("--modules", nargs="*", default=[], help="modules that programs may import, such as numpy")
    group.add_argument("--unsafe", action="store_true", help="run programs even where they cannot be locked down")
    group.add_argument(
        "--max-unscored",
        type=float,
        default=0.01,
        help="share of samples that may be left out because the machinery failed to run them",
    )
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; exits with status 2 and a message where they do not go together."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.completions is not None and (options.model or options.endpoint):
        parser.error("--completions goes with neither --model nor --endpoint")
    if options.completions is None and options.model is None:
        parser.error("one of --model and --completions is needed")
    if options.completions is None and options.ids is not None:
        parser.error("--ids goes with --completions")
    samples = options.samples or (64 if options.completions is None else None)
    if options.k is not None and samples is not None and max(options.k) > samples:
        parser.error(f"--k {max(options.k)} needs at least as many --samples, not {samples}")
    return options


if __name__ == "__main__":
    sys.exit(main())
