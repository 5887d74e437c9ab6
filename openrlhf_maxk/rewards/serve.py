"""Rewards as a service: ``python -m openrlhf_maxk.rewards.serve --problems DIR`` (or ``--reward-func``, ``--math``).

It speaks OpenRLHF's protocol (a POST of ``query``, ``prompts`` and ``labels``, for ``--reward.remote_url``) at
``/get_reward`` and, with ``--run-code``, SandboxFusion's ``run_code``, for ``--maxk.runner``. Beyond loopback it wants
a token. Ctrl-C and SIGTERM let it finish what it is working on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from openrlhf_maxk.problems.store import StoreError
from openrlhf_maxk.rewards.request import MATH, PROBLEMS, RewardSpec
from openrlhf_maxk.rewards.scoring.scorers import Scorer, make_scorer
from openrlhf_maxk.rewards.serving.listening import add_listening, cannot_listen, check_listening, serve_until_told
from openrlhf_maxk.rewards.serving.server import Answerer, RewardServer
from openrlhf_maxk.rewards.serving.wire import reward_answerer


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop. Returns the exit status: 0, or 1 if the service cannot be started."""
    options = parse(arguments)
    try:
        answerers = _answerers(options)
        server = _server(options, answerers)
    except (StoreError, OSError, ValueError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    serve_until_told(server, options.token)
    return 0


def _server(options: argparse.Namespace, answerers: dict[str, Answerer]) -> RewardServer:
    address = (options.host, options.port)
    try:
        return RewardServer(address, answerers, options.token, int(options.max_body * 2**20), options.max_requests)
    except OSError as error:
        raise cannot_listen(options, error) from None


def _answerers(options: argparse.Namespace) -> dict[str, Answerer]:
    cores = options.cores or len(os.sched_getaffinity(0))
    answerers: dict[str, Answerer] = {}
    scorer = _scorer(options, cores)
    if scorer is not None:
        answerers["/get_reward"] = answerers["/"] = reward_answerer(scorer, options.end)
    if options.run_code:
        from openrlhf_maxk.rewards.serving.run_code import RunCode

        answerers["/run_code"] = RunCode(cores, options.unsafe)
    return answerers


def _scorer(options: argparse.Namespace, cores: int) -> Scorer | None:
    terms = {"format_reward": options.format_reward, "length_penalty": options.length_penalty, "runner": options.runner}
    if options.problems is not None:
        return make_scorer(RewardSpec((PROBLEMS,), options.problems, options.reward, **terms), cores)
    if options.math:
        return make_scorer(RewardSpec((MATH,), kind=MATH, **terms), cores)
    return make_scorer(RewardSpec((options.reward_func,)), cores) if options.reward_func is not None else None


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.rewards.serve", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--problems", help="folder of problems: programs are run on their tests, labels are problem ids"
    )
    source.add_argument("--math", action="store_true", help="answers are compared with the label by math-verify")
    source.add_argument("--reward-func", help="a Python file with reward_func(queries, prompts, labels)")
    parser.add_argument("--run-code", action="store_true", help="run programs for others, by SandboxFusion's protocol")
    parser.add_argument("--reward", choices=("continuous", "binary"), default="continuous", help="of --problems")
    parser.add_argument("--format-reward", type=float, default=0.0, help="as --maxk.format_reward")
    parser.add_argument("--length-penalty", type=float, default=0.0, help="as --maxk.length_penalty")
    parser.add_argument(
        "--runner", default="sandbox", help="what runs programs: sandbox, bubblewrap, or a service's URL"
    )
    parser.add_argument("--cores", type=int, help="cores that run programs (all)")
    parser.add_argument("--unsafe", action="store_true", help="--run-code even where programs cannot be locked down")
    parser.add_argument(
        "--end", action="append", default=[], help="text that ends a completion, besides the usual ones"
    )
    add_listening(parser, port=5000)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; exits with status 2 and a message where they do not go together."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not (options.problems or options.math or options.reward_func or options.run_code):
        parser.error("nothing to serve: give --problems, --math, --reward-func or --run-code")
    if options.reward_func and not options.reward_func.endswith(".py"):
        parser.error(f"--reward-func {options.reward_func} is not a .py file")
    if options.cores is not None and options.cores <= 0:
        parser.error(f"--cores {options.cores} must be above 0")
    check_listening(parser, options)
    return options


if __name__ == "__main__":
    sys.exit(main())
