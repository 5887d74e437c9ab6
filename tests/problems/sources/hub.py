"""A hub of data sets on this machine, as much of one as ``huggingface_hub`` asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Hub:
    """Repositories with branches and commits. Files may be made to arrive damaged or cut short."""

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}  # (repository, commit) to files
        self.branches: dict[tuple[str, str], str] = {}
        self.sent_instead: dict[str, list[bytes]] = {}  # file name to what its next downloads get
        self.downloads: list[str] = []
        self.url = ""

    def push(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit on a branch; returns its name."""
        commit = hashlib.sha1(repr((repo, sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[repo, commit] = files
        self.branches[repo, branch] = commit
        return commit

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.branches.get((repo, revision), revision)
        files = self.commits.get((repo, commit))
        return None if files is None else (commit, files)


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(self.path.split("?")[0]).strip("/").split("/")
            if path[:2] == ["api", "datasets"]:
                repo, revision = "/".join(path[2:4]), path[5] if len(path) > 5 else "main"
                if (found := hub.find(repo, revision)) is None:
                    return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                siblings = [
                    {
                        "rfilename": name,
                        "size": len(data),
                        "blobId": hashlib.sha1(data).hexdigest(),
                        "lfs": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130},
                    }
                    for name, data in found[1].items()
                ]
                info = {"id": repo, "sha": found[0], "siblings": siblings, "private": False, "tags": [], "downloads": 0}
                return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
            if path[0] == "datasets" and "resolve" in path:
                repo, revision, name = "/".join(path[1:3]), path[4], "/".join(path[5:])
                found = hub.find(repo, revision)
                if found is None or name not in found[1]:
                    return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
                data = found[1][name]
                headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": found[0]}
                headers["Accept-Ranges"] = "none"
                if body:
                    hub.downloads.append(name)
                    if hub.sent_instead.get(name):
                        data = hub.sent_instead[name].pop(0)
                return self.send(200, data, headers, body)
            return self.send(404, b"", {})

        def send(self, status: int, data: bytes, headers: dict[str, str], body: bool = True) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(data))}).items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
