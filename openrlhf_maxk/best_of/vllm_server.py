"""A running vLLM server, or another that speaks its protocol, asked so that a question can be dropped."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from openrlhf_maxk.best_of.running import LOOKS, Unwanted
from openrlhf_maxk.rewards.serving.server import BadRequest, Unavailable

KEY = "OPENAI_API_KEY"  # the environment variable that holds the server's key
_REFUSALS = (400, 404, 413, 422)  # what the request is to blame for
_ENDS = ("stop", "length")  # of a whole sample; others tell that the server gave up


class VllmServer:
    """At ``url``, with or without its ``/v1``. May be used from several threads.

    Raises:
        ValueError: ``url`` is none.
    """

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--endpoint {url} is no URL of a server, such as http://127.0.0.1:8000/v1")
        self.url = url
        self._connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._base = parts.path.rstrip("/") or "/v1"
        self._timeout = timeout
        key = os.environ.get(KEY)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def models(self) -> dict[str, Any]:
        """The models that it serves, as it says it. Raises BadRequest, Unavailable."""
        return self._ask("GET", "/models", None, lambda: False)

    def samples(self, request: Mapping[str, Any], k: int, unwanted: Callable[[], bool]) -> dict[str, Any]:
        """The answer to a chat request, with ``k`` whole samples among its ``choices``.

        The server drops the request as soon as ``unwanted`` says that nobody waits for it any more: the connection is
        closed then.

        Raises:
            BadRequest: the server refuses the request.
            Unavailable: it is not there, fails, or does not give all samples.
            Unwanted: ``unwanted`` said so.
        """
        answer = self._ask("POST", "/chat/completions", {**request, "n": k, "stream": False}, unwanted)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != k:
            count = len(choices) if isinstance(choices, list) else "no"
            raise Unavailable(f"{self.url} gave {count} of {k} samples")
        for choice in choices:
            if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
                raise Unavailable(f"{self.url} gave a sample without a message")
            if choice.get("finish_reason") not in _ENDS:
                raise Unavailable(f"{self.url} gave up on a sample ({choice.get('finish_reason')})")
        return answer

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, unwanted: Callable[[], bool]
    ) -> dict[str, Any]:
        connection = self._connect(self._host, self._port, timeout=self._timeout)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, self._base + path, data, self._headers)
            self._wait(connection, unwanted)
            response = connection.getresponse()
            status, content = response.status, response.read()
        except (OSError, HTTPException) as error:
            said = str(error) or type(error).__name__
            raise Unavailable(f"{self.url} does not answer ({said}): is the vLLM server running there?") from error
        finally:
            connection.close()
        return self._read(status, content)

    def _wait(self, connection: HTTPConnection, unwanted: Callable[[], bool]) -> None:
        """Until the first byte of the answer is there."""
        deadline = time.monotonic() + self._timeout
        readable = select.poll()
        readable.register(connection.sock, select.POLLIN)
        while not readable.poll(LOOKS * 1000):
            if unwanted():
                raise Unwanted
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing within {self._timeout:g} s (--timeout)")

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if status == 200 and isinstance(answer, dict):
            return answer
        said = _message(answer) or content[:300].decode("utf-8", "replace")
        if status in _REFUSALS:
            raise BadRequest(f"{self.url} refuses the request ({status}): {said}")
        key = f"; its key belongs into {KEY}" if status in (401, 403) else ""
        raise Unavailable(f"{self.url} failed ({status}): {said}{key}")


def _message(answer: Any) -> str:
    """The message of an error, in OpenAI's form or an older one of vLLM."""
    if not isinstance(answer, dict):
        return ""
    error = answer.get("error", answer)
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)
