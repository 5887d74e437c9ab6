"""``python -m openrlhf_maxk.cli.best_of --model MODEL --k 64 --problem FILE``: the best of k samples.

FILE (or standard input) is a statement with examples, or a JSON record with tests. k programs are sampled and run on
the tests; the best is printed, and on standard error how many passed what. With ``--endpoint URL``, a running vLLM
server is asked instead; without ``--problem``, this becomes an OpenAI-compatible service in front of it, whose answers
are the best of k. docs/best_of.md tells the fields, and how ties are broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrlhf_maxk.best_of.choice import UndecidedError
from openrlhf_maxk.best_of.problem import ProblemError, problem_in
from openrlhf_maxk.cli.common import positive, reason
from openrlhf_maxk.platform import evaluation_dtype
from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.store import StoreError
from openrlhf_maxk.rewards.execution.runner import Runner, SandboxUnavailableError
from openrlhf_maxk.rewards.serving.listening import add_listening, cannot_listen, check_listening, serve_until_told
from openrlhf_maxk.rewards.serving.server import BadRequest, Unavailable

if TYPE_CHECKING:
    from openrlhf_maxk.best_of.chat import BestOf
    from openrlhf_maxk.best_of.choice import Best
    from openrlhf_maxk.evaluation.samples.problem_set import Input, ProblemSet

MOST_NEW_TOKENS = 4096  # unless --max-new-tokens says otherwise
NOT_SOLVED = 3  # exit status


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 for a program that passes all tests (or a service that was stopped), 1 for an error,
    2 for wrong options, 3 where even the best program fails a test, 130 when interrupted."""
    options = parse(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, to their developers
    try:
        return _serve(options) if options.serves else _answer(options)
    except _known_errors() as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {reason(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _serve(options: argparse.Namespace) -> int:
    from openrlhf_maxk.best_of.chat import BestOfServer

    with _runner(options) as runner:
        best = _best_of(options, runner)
        address, most = (options.host, options.port), int(options.max_body * 2**20)
        try:
            server = BestOfServer(address, best, options.token, most, options.max_requests)
        except OSError as error:
            raise cannot_listen(options, error) from None
        serve_until_told(server, options.token)
    return 0


def _answer(options: argparse.Namespace) -> int:
    problem, given = _problem(options)
    with _runner(options) as runner:
        runner.check(problem)  # before anything is generated
        ask = _from_endpoint if options.endpoint is not None else _from_model
        best = ask(options, problem, given, runner)
    for line in told(best, options.k):
        print(line, file=sys.stderr)
    if best.program is not None:
        print(problem.whole(best.program))
    return 0 if best.passed == len(problem.tests) else NOT_SOLVED


def told(best: Best, k: int) -> list[str]:
    """How the best was chosen, for people."""
    tests = len(best.passing)
    lost = f", {best.lost} of them could not be run" if best.lost else ""
    lines = [f"{k} samples, {best.programs} with a program{lost}, {best.solving} pass all of {tests} tests"]
    lines += [f"test {number}: passed by {count}" for number, count in enumerate(best.passing, 1)]
    if best.program is None:
        return [*lines, "no sample holds a program"]
    lines.append(f"best: sample {best.sample + 1}, passes {best.passed} of {tests}; {best.votes} answer as it does")
    return lines if best.passed == tests else [*lines, f"it fails: {best.detail or 'see above'}"]


def _problem(options: argparse.Namespace) -> tuple[Problem, Input | None]:
    """The problem, with the tests that may be seen only, and what a model is asked where a split says it."""
    if options.problems is not None:
        from openrlhf_maxk.evaluation.samples.problem_set import load_problem_set

        found = load_problem_set(options.problems, options.split)
        if options.problem not in found.inputs:
            where = f"{options.problems}{f', split {options.split}' if options.split else ''}"
            raise ProblemError(f"--problem {options.problem}: there is no such id in {where}")
        problem = found.problems[options.problem]
        if not problem.public_tests:
            raise ProblemError(f"--problem {options.problem}: it has no public tests, so nothing may choose")
        problem = replace(problem, tests=problem.tests[: problem.public_tests])
        return problem, found.inputs[options.problem] if options.split is not None else None
    name = "standard input" if options.problem == "-" else options.problem
    try:
        content = sys.stdin.read() if options.problem == "-" else Path(options.problem).read_text(encoding="utf-8-sig")
        return problem_in(content), None
    except UnicodeDecodeError as error:
        raise ProblemError(f"{name} is not UTF-8: {error}") from None
    except ProblemError as error:
        raise ProblemError(f"{name}: {error}") from None


def _runner(options: argparse.Namespace) -> Runner:
    from openrlhf_maxk.rewards.execution.backends import open_runner

    return open_runner(options.runner, _cores(options), modules=options.modules, unsafe=options.unsafe)


def _cores(options: argparse.Namespace) -> int:
    return options.cores or len(os.sched_getaffinity(0))


def _asked(options: argparse.Namespace, problem: Problem, given: Input | None, chat: bool) -> ProblemSet:
    """The problem and what a model is asked, with a chat template or without."""
    from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet
    from openrlhf_maxk.problems.sources.preparation.prompts import request

    text = request(problem) if chat and options.prompt_template is None else problem.statement
    return ProblemSet({problem.id: problem}, {problem.id: given or text})


def _best_of(options: argparse.Namespace, runner: Runner) -> BestOf:
    from openrlhf_maxk.best_of.chat import BestOf
    from openrlhf_maxk.best_of.vllm_server import VllmServer

    given = {
        "model": options.model,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "max_tokens": options.max_new_tokens,
        "stop": options.stop,
        "seed": options.seed,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    server = VllmServer(options.endpoint, options.timeout)
    return BestOf(server, runner, options.k, _cores(options), settings)


def _from_endpoint(options: argparse.Namespace, problem: Problem, given: Input | None, runner: Runner) -> Best:
    from openrlhf_maxk.evaluation.samples.problem_set import messages_of

    best_of, asked = _best_of(options, runner), _asked(options, problem, given, chat=True)
    inputs = asked.inputs if options.prompt_template is None else asked.prompts(None, options.prompt_template)
    request: dict[str, Any] = {"messages": messages_of(inputs[problem.id])}
    if options.model is None:
        models = best_of.server.models().get("data") or [{}]
        request["model"] = models[0].get("id")
    request |= {"temperature": 1.0, **best_of.settings}
    return best_of.choose(request, options.k, problem, lambda: False)[1]


def _from_model(options: argparse.Namespace, problem: Problem, given: Input | None, runner: Runner) -> Best:
    from openrlhf_maxk.best_of.running import best_of

    texts = _sampled(options, problem, given)
    return best_of(texts, problem, runner, _cores(options), lambda: False)


def _sampled(options: argparse.Namespace, problem: Problem, given: Input | None) -> list[str]:
    """k completions of the model."""
    from openrlhf_maxk.evaluation.samples.model import find_model
    from openrlhf_maxk.evaluation.samples.records import Sampling, missing_requests
    from openrlhf_maxk.evaluation.samples.vllm_sampler import EngineError, EngineOptions, VllmSampler

    model = find_model(options.model, options.revision)
    tokenizer = model.tokenizer()
    chat = None
    if tokenizer.chat_template is not None and options.prompt_template is None:
        chat = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
    asked = _asked(options, problem, given, chat is not None)
    prompt = asked.prompts(chat, options.prompt_template)[problem.id]
    tokens = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    sampling = Sampling(
        1.0 if options.temperature is None else options.temperature,
        1.0 if options.top_p is None else options.top_p,
        options.top_k or 0,
        options.max_new_tokens or MOST_NEW_TOKENS,
        tuple(options.stop or ()),
        options.seed or 0,
    )
    room = (model.context() or len(tokens) + sampling.max_new_tokens) - len(tokens)
    if not tokens or room < (options.max_new_tokens or 1):
        raise ProblemError(
            f"the prompt has {len(tokens)} tokens, and the model's context of {model.context()} leaves "
            f"{max(0, room)} for an answer: shorten it, or lower --max-new-tokens"
        )
    sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))
    engine = EngineOptions(
        engines=1,
        tensor_parallel_size=options.tensor_parallel_size,
        dtype=options.dtype,
        gpu_memory_utilization=options.gpu_memory_utilization,
    )
    sampler = VllmSampler(model, sampling, {problem.id: tokens}, engine)
    requests = missing_requests({problem.id: prompt}, {}, {problem.id: options.k}, sampling.seed, options.k)
    samples = sorted((s for batch in sampler.sample(requests) for s in batch), key=lambda sample: sample.index)
    if len(samples) < options.k:
        raise EngineError(f"the engine gave {len(samples)} of {options.k} samples")
    return [sample.completion for sample in samples]


def _known_errors() -> tuple[type[Exception], ...]:
    """Errors whose message says all that is needed."""
    from openrlhf_maxk.evaluation.samples.model import ModelError
    from openrlhf_maxk.evaluation.samples.vllm_sampler import EngineError

    return (
        *(BadRequest, Unavailable, UndecidedError, StoreError, SandboxUnavailableError),
        *(ModelError, EngineError, ValueError, ModuleNotFoundError),
    )


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.cli.best_of", description=__doc__)
    parser.add_argument("--model", help="Hugging Face folder or model of the hub; with --endpoint, its name there")
    parser.add_argument("--revision", help="of a model of the hub")
    parser.add_argument("--endpoint", help="URL of a running vLLM server (its key: OPENAI_API_KEY)")
    parser.add_argument("--problem", help="file with a statement or a JSON record, - for standard input; or an id")
    parser.add_argument("--problems", help="folder of prepared problems, one of which --problem names")
    parser.add_argument("--split", help="of them, whose prompts to use")
    parser.add_argument("--k", type=positive, default=64, help="samples (64); of a service, the most that one may ask")

    group = parser.add_argument_group("sampling (of a service: used in place of what a request says)")
    group.add_argument("--temperature", type=float, help="(1)")
    group.add_argument("--top-p", type=float, help="(1)")
    group.add_argument("--top-k", type=int, help="(all tokens)")
    group.add_argument(
        "--max-new-tokens", type=positive, help=f"(what the context leaves; with --model at most {MOST_NEW_TOKENS})"
    )
    group.add_argument("--stop", nargs="+", help="texts that end a sample")
    group.add_argument("--seed", type=int, help="(0; of a vLLM server: a new one each time)")
    group.add_argument("--prompt-template", help="text with {} in the place of the statement")

    group = parser.add_argument_group("machines")
    group.add_argument("--tensor-parallel-size", type=positive, default=1, help="GPUs of the engine of --model")
    group.add_argument("--dtype", default=evaluation_dtype(), help="of that engine; auto: the model's")
    group.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    group.add_argument("--timeout", type=float, default=600.0, help="seconds that a vLLM server may take (600)")
    group.add_argument("--cores", type=positive, help="cores that run programs (all)")
    group.add_argument("--runner", default="sandbox", help="sandbox, bubblewrap, or a service's URL")
    group.add_argument("--modules", nargs="*", default=[], help="modules that programs may import, such as numpy")
    group.add_argument("--unsafe", action="store_true", help="run programs even where they cannot be locked down")
    add_listening(parser.add_argument_group("service (--endpoint without --problem)"), port=5001)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; exits with status 2 and a message where they do not go together."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.model is None and options.endpoint is None:
        parser.error("one of --model and --endpoint is needed")
    if options.problems is not None and options.problem is None:
        parser.error("--problems needs --problem, the id of one of them")
    if options.split is not None and options.problems is None:
        parser.error("--split is of --problems")
    options.serves = options.endpoint is not None and options.problem is None
    if options.serves and options.prompt_template is not None:
        parser.error("--prompt-template is of --problem: a service passes on the messages that it gets")
    options.problem = options.problem or "-"
    if options.temperature == 0 and options.k > 1:
        parser.error(f"--temperature 0 makes all {options.k} samples the same: leave it out, or ask for --k 1")
    if options.prompt_template is not None and "{}" not in options.prompt_template:
        parser.error("--prompt-template has no {}, the place of the statement")
    if options.timeout <= 0:
        parser.error(f"--timeout {options.timeout:g} must be above 0")
    if options.serves:
        check_listening(parser, options)
    return options


if __name__ == "__main__":
    sys.exit(main())
