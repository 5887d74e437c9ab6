"""OpenAI's chat completions, answered by the best of k samples of a vLLM server.

A request may hold, beside OpenAI's and vLLM's own fields, ``k`` and the fields of a problem (:mod:`.problem`). What is
not ours goes to the server as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from openrlhf_maxk.best_of.choice import Best, UndecidedError
from openrlhf_maxk.best_of.problem import FIELDS, ProblemError, problem_of
from openrlhf_maxk.best_of.running import Unwanted, best_of
from openrlhf_maxk.best_of.vllm_server import VllmServer
from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.rewards.execution.runner import Runner
from openrlhf_maxk.rewards.serving.server import Answer, BadRequest, ClientGone, Gone, RewardServer, Text, Unavailable

CHAT, MODELS = "/v1/chat/completions", "/v1/models"
_NOT_HERE = ("tools", "functions", "response_format")  # the answer is a program in a text
_OURS = ("k", *FIELDS, "n", "stream", "stream_options")


@dataclass(frozen=True)
class BestOf:
    """Answers chat requests. May be used from several threads.

    ``k``: samples a request, and the most that one may ask for. ``settings``: fields of a request that are decided
    here, whatever it says. ``at_once``: programs of a request that are run at a time.
    """

    server: VllmServer
    runner: Runner
    k: int
    at_once: int
    settings: Mapping[str, Any]

    def answer(self, request: dict[str, Any], gone: Gone = lambda: False) -> dict[str, Any] | Text:
        """The best sample as the one choice of a chat completion, ``best_of`` telling how it was chosen.

        Raises:
            BadRequest: the message names the field.
            Unavailable: the vLLM server or the sandbox failed.
            ClientGone: ``gone`` said so.
        """
        try:
            k, problem = self._k(request), self._problem(request)
            stream = _flag(request, "stream")
            answer, best = self.choose(self._passed_on(request, k), k, problem, gone)
        except Unwanted:
            raise ClientGone from None
        whole = {
            **{name: answer.get(name) for name in ("id", "created", "model")},
            "object": "chat.completion",
            "choices": [{**answer["choices"][best.sample], "index": 0}],
            "usage": answer.get("usage"),
            "best_of": report(best, k),
        }
        options = request.get("stream_options")
        with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        return _events(whole, with_usage) if stream else whole

    def choose(
        self, request: Mapping[str, Any], k: int, problem: Problem, unwanted: Callable[[], bool]
    ) -> tuple[dict[str, Any], Best]:
        """The server's answer to ``request``, with k samples, and the best of them.

        Raises:
            BadRequest, Unavailable: as :meth:`answer`.
            Unwanted: ``unwanted`` said so.
        """
        answer = self.server.samples(request, k, unwanted)
        texts = [choice["message"].get("content") or "" for choice in answer["choices"]]
        try:
            return answer, best_of(texts, problem, self.runner, self.at_once, unwanted)
        except UndecidedError as error:
            raise Unavailable(f"the sandbox failed, and nothing is chosen: {error}") from error

    def _k(self, request: Mapping[str, Any]) -> int:
        k = self.k if request.get("k") is None else request["k"]
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= self.k:
            raise BadRequest(f"k: it must be a whole number from 1 to {self.k} (--k), not {k!r}")
        return k

    def _problem(self, request: Mapping[str, Any]) -> Problem:
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
            raise BadRequest("messages: it must be a list of messages that is not empty")
        asked = [_text(message.get("content")) for message in messages if message.get("role") == "user"]
        try:
            problem = problem_of(request, asked[-1] if asked else "")
            self.runner.check(problem)  # before anything is generated
        except ProblemError as error:
            raise BadRequest(str(error)) from error
        except ValueError as error:
            raise BadRequest(f"tests: {error}") from error
        return problem

    def _passed_on(self, request: Mapping[str, Any], k: int) -> dict[str, Any]:
        """What the vLLM server is asked."""
        if request.get("n") not in (None, 1):
            raise BadRequest(f"n: there is one answer, the best, so n is 1, not {request['n']!r}; k says of how many")
        for name in _NOT_HERE:
            if request.get(name):
                raise BadRequest(f"{name}: it is not supported here, where the answer is a program: leave it out")
        ours = {"max_completion_tokens", *_OURS} if "max_tokens" in self.settings else set(_OURS)
        passed = {name: value for name, value in request.items() if name not in ours} | dict(self.settings)
        if passed.get("temperature") == 0 and k > 1:
            raise BadRequest(
                f"temperature: with 0 all {k} samples are the same: leave it out, or start this service with "
                "--temperature, which is used in its place"
            )
        return passed


class BestOfServer(RewardServer):
    """:class:`BestOf` at OpenAI's paths, its errors in OpenAI's form."""

    def __init__(
        self, address: tuple[str, int], best: BestOf, token: str | None, max_body: int, max_connections: int
    ) -> None:
        super().__init__(address, {CHAT: best.answer}, token, max_body, max_connections)
        self.pages[MODELS] = best.server.models
        self._best = best

    def ask(self, path: str, body: dict[str, Any], gone: Gone) -> Answer:
        return self._best.answer(body, gone)

    def error(self, status: HTTPStatus, message: str) -> dict[str, Any]:
        kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": int(status)}}


def report(best: Best, k: int) -> dict[str, Any]:
    """How a sample was chosen, as JSON."""
    return {
        "k": k,
        "sample": best.sample,
        "programs": best.programs,
        "lost": best.lost,
        "passed": best.passed,
        "tests": len(best.passing),
        "verdicts": [str(verdict) for verdict in best.verdicts],
        "detail": best.detail,
        "passing": list(best.passing),
        "solving": best.solving,
        "votes": best.votes,
    }


def _text(content: Any) -> str:
    """The text of a message: a text itself, or a list of parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _flag(request: Mapping[str, Any], name: str) -> bool:
    found = request.get(name)
    if found is not None and not isinstance(found, bool):
        raise BadRequest(f"{name}: it must be true or false, not {found!r}")
    return bool(found)


def _events(answer: Mapping[str, Any], with_usage: bool) -> Text:
    """A chat completion as a stream: its text in one piece, since it is known only when all samples have been run."""
    choice = answer["choices"][0]
    delta = {"role": "assistant", "content": choice["message"].get("content") or ""}
    piece = {"index": 0, "delta": delta, "finish_reason": choice["finish_reason"]}
    head = {name: answer[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    chunks = [head | {"choices": [piece], "best_of": answer["best_of"]}]
    if with_usage:
        chunks.append(head | {"choices": [], "usage": answer["usage"]})
    lines = [json.dumps(chunk, allow_nan=False) for chunk in chunks]
    return Text("text/event-stream", "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]")))
