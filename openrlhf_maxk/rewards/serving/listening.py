"""What the services of this package share on their command lines: where they listen, to whom, and until when."""

from __future__ import annotations

import argparse
import os
import signal
import threading

from openrlhf_maxk.rewards.execution.service import TOKEN
from openrlhf_maxk.rewards.serving.server import RewardServer, is_loopback

_SHORTEST_TOKEN = 16


def add_listening(parser: argparse.ArgumentParser | argparse._ArgumentGroup, port: int) -> None:
    """Add the options, with ``port`` where none is given."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=port, help=f"port to listen on ({port}; 0: any)")
    parser.add_argument("--token", default=os.environ.get(TOKEN) or None, help=f"what clients must bring (${TOKEN})")
    parser.add_argument("--max-body", type=float, default=64.0, help="MiB of a request (64)")
    parser.add_argument(
        "--max-requests", type=int, default=64, help="connections at once; others are told to come back"
    )


def check_listening(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with status 2 and a message if they cannot be, or let others in without a token."""
    for name in ("max_body", "max_requests"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name):g} must be above 0")
    if options.token is not None and (len(options.token) < _SHORTEST_TOKEN or not options.token.isascii()):
        parser.error(f"a token has at least {_SHORTEST_TOKEN} ASCII characters: try `openssl rand -hex 32`")
    if options.token is None and not is_loopback(options.host):
        parser.error(
            f"--host {options.host} is reached by others: set {TOKEN} (or --token) here and for the clients, "
            "or listen on 127.0.0.1"
        )


def cannot_listen(options: argparse.Namespace, error: OSError) -> OSError:
    """``error`` of a server that could not be made, said in words of the options."""
    return OSError(f"cannot listen on --host {options.host} --port {options.port}: {error.strerror}")


def serve_until_told(server: RewardServer, token: str | None) -> None:
    """Answer requests until Ctrl-C or SIGTERM; those in work are finished."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.stop).start())
    paths = ", ".join((*server.answerers, *server.pages, "/health"))
    print(f"listening on {server.url} ({paths}){'' if token else ', without a token'}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()  # waits for the requests in work
    print("stopped", flush=True)
