"""An HTTP server for JSON requests: who may ask, how much, how many at once, and how it stops. What is asked is not its
business.

Errors are JSON, ``{"error": "…"}``. A 4xx says that the same request would be refused again, a 5xx that it may be
repeated: nothing that fails here is ever an answer.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not one JSON object."""

    kind: str  # its media type
    content: str


Answer = Mapping[str, Any] | Text
Answerer = Callable[[dict[str, Any]], Answer]
"""Turns a request's JSON object into the answer's; raises BadRequest."""

Gone = Callable[[], bool]
"""Whether the client has closed its connection, so that nobody waits for the answer."""

IDLE_SECONDS = 60.0  # a connection may be silent for so long
HEAD_SECONDS = 60.0  # and its next request's head must be there by then, however it trickles in
BODY_SECONDS, SLOWEST_BYTES = 60.0, 100_000  # a body must come in that time, and so many bytes a second
_LONGEST_LENGTH = 18  # digits of a Content-Length that are read
STRANGERS = 256  # connections that have not shown that they may ask; the oldest gives way to the next one
LINGER_SECONDS = 5.0  # what a refused client still sends is thrown away for so long


class BadRequest(ValueError):
    """A request that cannot be answered, however often it is sent; the message names the field and what is wrong."""


class Unavailable(RuntimeError):
    """The machinery failed: the request may be sent again."""


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. Raises OSError for a name that cannot be resolved."""
    if not host:
        return False
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


class RewardServer(ThreadingHTTPServer):
    """Answers a POST to each path of ``answerers`` in a thread, and a GET of ``/health``."""

    daemon_threads = False  # the end waits for them
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        answerers: Mapping[str, Answerer],
        token: str | None,
        max_body: int,
        max_connections: int,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.answerers = answerers
        self.pages: dict[str, Callable[[], Mapping[str, Any]]] = {}  # what a GET gets, by path; raises as an answerer
        self.authorization = None if token is None else f"Bearer {token}".encode()
        self.max_body = max_body
        self.stopping = False
        self.started = time.monotonic()
        self.answered = 0
        self.lock = threading.Lock()
        self._places = threading.BoundedSemaphore(max_connections)
        self._strangers: dict[socket.socket, None] = {}  # in the order in which they came
        self._guests: set[socket.socket] = set()  # each has a place

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if self.address_family == socket.AF_INET6 else f"http://{host!s}:{port}"

    def stop(self) -> None:
        """Take no more requests, and let those in work finish. Not to be called from ``serve_forever``'s thread."""
        self.stopping = True
        self.shutdown()
        with self.lock:
            for connection in (*self._strangers, *self._guests):
                _end(connection, socket.SHUT_RD)  # who waits for a request gets an end of file

    def ask(self, path: str, body: dict[str, Any], gone: Gone) -> Answer:
        """The answer to a POST to ``path``, one of ``answerers``.

        Raises:
            BadRequest, Unavailable: as they say.
            ClientGone: ``gone`` said so, and the work was dropped.
        """
        return self.answerers[path](body)

    def error(self, status: HTTPStatus, message: str) -> dict[str, Any]:
        """The body of an answer that is an error."""
        return {"error": message}

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            if len(self._strangers) >= STRANGERS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                _end(oldest, socket.SHUT_RDWR)
            self._strangers[request] = None
        super().process_request(request, client_address)

    def admit(self, request: socket.socket) -> bool:
        """Give a place to a connection that may ask, if it has none; it keeps it. Returns whether it has one."""
        with self.lock:
            if request in self._guests:
                return True
            if not self._places.acquire(blocking=False):
                return False
            self._strangers.pop(request, None)
            self._guests.add(request)
            return True

    def shutdown_request(self, request: Any) -> None:
        with self.lock:
            self._strangers.pop(request, None)
            had_place = request in self._guests
            self._guests.discard(request)
        super().shutdown_request(request)
        if had_place:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a connection of %s broke", client_address, exc_info=True)


def _end(connection: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(how)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "openrlhf_maxk", ""
    timeout = IDLE_SECONDS
    server: RewardServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in self.server.pages:
            return self._show(path)
        if path != "/health":
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is {', '.join(('/health', *self.server.pages))} to GET")
        return self._answer(
            HTTPStatus.OK,
            {
                "status": "ok",
                "paths": list(self.server.answerers),
                "answered": self.server.answered,
                "seconds": round(time.monotonic() - self.server.started, 1),
            },
        )

    def _show(self, path: str) -> None:
        if self._admitted():
            self._answer(*self._try(self.server.pages[path]))

    def do_POST(self) -> None:
        if not self._admitted():
            return None
        path = self.path.partition("?")[0]
        if path not in self.server.answerers:
            return self._refuse(HTTPStatus.NOT_FOUND, f"there is {', '.join(self.server.answerers)} to POST to")
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) > 1 or (lengths and "Transfer-Encoding" in self.headers):
            return self._refuse(HTTPStatus.BAD_REQUEST, "a request needs one Content-Length, and no Transfer-Encoding")
        if not (lengths and lengths[0].isascii() and lengths[0].isdigit()):
            return self._refuse(HTTPStatus.LENGTH_REQUIRED, "a request needs a Content-Length")
        length = int(lengths[0][:_LONGEST_LENGTH])
        if not 0 <= length <= self.server.max_body:
            most = f"{self.server.max_body} bytes (--max-body)"
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length} bytes are more than {most}: send fewer")
        try:
            body = self._read(length)
        except TimeoutError:
            return self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not come in time")
        if len(body) < length:  # the client is gone, or we are going
            self.close_connection = True
            return None
        try:
            return self._answer(*self._try(lambda: self.server.ask(path, _object(body), self._client_gone)))
        except ClientGone:
            self.close_connection = True
            return None

    def _try(self, ask: Callable[[], Answer]) -> tuple[HTTPStatus, Answer]:
        """What ``ask`` returns, or the error that it raises, with its status. Raises ClientGone."""
        try:
            return HTTPStatus.OK, ask()
        except ClientGone:
            raise
        except BadRequest as error:
            status, message = HTTPStatus.BAD_REQUEST, str(error)
        except Unavailable as error:
            status, message = HTTPStatus.SERVICE_UNAVAILABLE, str(error)
        except Exception as error:  # what an answerer raises, OSError too; the connection's errors come from elsewhere
            logger.exception("a request could not be answered")
            status, message = HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}"
        return status, self.server.error(status, message)

    def _client_gone(self) -> bool:
        """Whether the client has closed its side. What it may have sent after its request stays to be read."""
        if self.server.stopping:  # we have closed our own reading side, and finish what is in work
            return False
        try:
            readable = select.poll()
            readable.register(self.connection, select.POLLIN)
            return bool(readable.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def handle_one_request(self) -> None:
        """As upstream, with a time by which the head must have come."""
        with self._deadline(HEAD_SECONDS):
            self.raw_requestline = self.rfile.readline(65537)
            parsed = bool(self.raw_requestline) and len(self.raw_requestline) <= 65536 and self.parse_request()
        if not self.raw_requestline:
            self.close_connection = True
        elif len(self.raw_requestline) > 65536:
            self.requestline = ""
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif parsed:
            method = getattr(self, f"do_{self.command}", None)
            if method is None:
                self.close_connection, status = True, HTTPStatus.NOT_IMPLEMENTED
                return self._answer(status, self.server.error(status, f"there is no {self.command!r} here"))
            method()
        return None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the parser are JSON as all others."""
        self.close_connection = True
        self.request_version = "HTTP/1.1"  # whatever it was: the answer has a head
        self.command = getattr(self, "command", None) or ""
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    @contextlib.contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        """Close the connection's reading side if what is read here is not there in time, however it trickles in."""
        timer = threading.Timer(seconds, self._stop_reading)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stop_reading(self) -> None:
        _end(self.connection, socket.SHUT_RD)

    def _read(self, length: int) -> bytes:
        with self._deadline(BODY_SECONDS + length / SLOWEST_BYTES):
            return self.rfile.read(length)

    def _admitted(self) -> bool:
        """Whether this request may be asked and its connection has a place; if not, it has been refused."""
        if not self._may_ask():
            self._refuse(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong: Authorization: Bearer …")
            return False
        if not self.server.admit(self.connection):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections: come back later")
            return False
        return True

    def _may_ask(self) -> bool:
        wanted = self.server.authorization
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        return wanted is None or hmac.compare_digest(given, wanted)

    def _refuse(self, status: HTTPStatus, error: str) -> None:
        """Refuse a request whose body has not been read: the connection is of no use any more."""
        self.close_connection = True
        self._answer(status, self.server.error(status, error))
        self.connection.settimeout(0.5)  # a client that still sends would not see the answer if we closed now
        deadline = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < deadline and self.rfile.read1(2**16):
            pass

    def _answer(self, status: HTTPStatus, answer: Answer) -> None:
        if not isinstance(answer, Text):
            answer = Text("application/json", json.dumps(answer, allow_nan=False))
        body = answer.content.encode()
        with self.server.lock:  # before the client sees the answer, who may ask for /health next
            self.server.answered += status == HTTPStatus.OK and self.command == "POST"
        self.close_connection = self.close_connection or self.server.stopping
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise BadRequest(f"the body must be a JSON object, not {type(found).__name__}")
    return found
