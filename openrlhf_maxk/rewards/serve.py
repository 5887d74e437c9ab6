"""Rewards as a service: ``python -m openrlhf_maxk.rewards.serve --problems DIR`` (or ``--reward-func``, ``--math``).

It speaks OpenRLHF's protocol (a POST of ``query``, ``prompts`` and ``labels``, for ``--reward.remote_url``) at
``/get_reward`` and, with ``--run-code``, SandboxFusion's ``run_code``, for ``--maxk.runner``. Beyond loopback it wants
a token. Ctrl-C and SIGTERM let it finish what it is working on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from openrlhf_maxk.problems.store import StoreError
from openrlhf_maxk.rewards.execution.service import TOKEN
from openrlhf_maxk.rewards.request import MATH, PROBLEMS, RewardSpec
from openrlhf_maxk.rewards.scoring.scorers import Scorer, make_scorer
from openrlhf_maxk.rewards.serving.server import Answerer, RewardServer, is_loopback
from openrlhf_maxk.rewards.serving.wire import reward_answerer

_SHORTEST_TOKEN = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop. Returns the exit status: 0, or 1 if the service cannot be started."""
    options = parse(arguments)
    try:
        answerers = _answerers(options)
        server = _server(options, answerers)
    except (StoreError, OSError, ValueError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.stop).start())
    paths = ", ".join(answerers)
    print(f"listening on {server.url} ({paths}, /health){'' if options.token else ', without a token'}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()  # waits for the requests in work
    print("stopped", flush=True)
    return 0


def _server(options: argparse.Namespace, answerers: dict[str, Answerer]) -> RewardServer:
    address = (options.host, options.port)
    try:
        return RewardServer(address, answerers, options.token, int(options.max_body * 2**20), options.max_requests)
    except OSError as error:
        raise OSError(f"cannot listen on --host {options.host} --port {options.port}: {error.strerror}") from None


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
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=5000, help="port to listen on (5000; 0: any)")
    parser.add_argument("--token", default=os.environ.get(TOKEN) or None, help=f"what clients must bring (${TOKEN})")
    parser.add_argument("--max-body", type=float, default=64.0, help="MiB of a request (64)")
    parser.add_argument(
        "--max-requests", type=int, default=64, help="connections at once; others are told to come back"
    )
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; exits with status 2 and a message where they do not go together."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not (options.problems or options.math or options.reward_func or options.run_code):
        parser.error("nothing to serve: give --problems, --math, --reward-func or --run-code")
    if options.reward_func and not options.reward_func.endswith(".py"):
        parser.error(f"--reward-func {options.reward_func} is not a .py file")
    for name in ("cores", "max_body", "max_requests"):
        if getattr(options, name) is not None and getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name):g} must be above 0")
    if options.token is not None and (len(options.token) < _SHORTEST_TOKEN or not options.token.isascii()):
        parser.error(f"a token has at least {_SHORTEST_TOKEN} ASCII characters: try `openssl rand -hex 32`")
    if options.token is None and not is_loopback(options.host):
        parser.error(
            f"--host {options.host} is reached by others: set {TOKEN} (or --token) here and for the clients, "
            "or listen on 127.0.0.1"
        )
    return options


if __name__ == "__main__":
    sys.exit(main())
