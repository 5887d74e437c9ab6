"""Asking an HTTP service: a POST of JSON, tried again while the service is out of order, with a token if one is set."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

TOKEN = "OPENRLHF_MAXK_TOKEN"  # the environment variable that holds the token, of a client and of a server
TRIES = 5
_LONGEST_PAUSE = 10.0
_REFUSALS = (400, 401, 403, 405, 411, 413, 415, 422)  # the same request would be refused again

Answer = TypeVar("Answer")


class ServiceError(RuntimeError):
    """A service refused a request, or did not answer it in all tries. Never a reward."""


class TryAgain(Exception):
    """What came back says that the service failed: the request may be repeated."""


class Service:
    """One service at one or more URLs, which take turns. May be used from several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = itertools.cycle(urls)
        self._token = os.environ.get(TOKEN)
        self._local = threading.local()

    def post(self, payload: Any, timeout: float, read: Callable[[Any], Answer]) -> Answer:
        """Post ``payload`` as JSON; ``read`` turns the JSON that comes back into the answer, or raises TryAgain.

        ``timeout`` in seconds, for each try.
        Raises:
            ServiceError: the request was refused, or all tries failed; every failure is told.
        """
        import requests

        failures: list[str] = []
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(2.0 ** (attempt - 1), _LONGEST_PAUSE))
            url = next(self._urls)
            try:
                response = self._session().post(url, json=payload, timeout=timeout)
                if response.status_code in _REFUSALS:
                    raise ServiceError(f"{url} refused the request ({response.status_code}): {response.text[:500]}")
                response.raise_for_status()
                return read(response.json())
            except (requests.RequestException, TryAgain) as error:
                failures.append(f"{url}: {error}")
        raise ServiceError(f"no answer from the service after {TRIES} tries:\n" + "\n".join(failures))

    def _session(self) -> Any:
        """This thread's connections."""
        if not hasattr(self._local, "session"):
            import requests

            session = requests.Session()
            session.auth = self._sign if self._token else None
            self._local.session = session
        return self._local.session

    def _sign(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
