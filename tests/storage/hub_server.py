"""A server that answers as the Hugging Face Hub does, on this machine: create, commit, download."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory."""

    repositories: dict[str, dict[str, bytes]]
    private: dict[str, bool]

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        """Create a repository, say how files are uploaded, or commit them."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.headers.get("Authorization"):
            return self._answer({"error": "Invalid username or password."}, 401)
        parts = self.path.strip("/").split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = (
                f"{asked['organization']}/{asked['name']}"
                if asked.get("organization")
                else asked["name"]
            )
            known = name in self.repositories
            self.repositories.setdefault(name, {})
            self.private.setdefault(
                name, asked.get("private", asked.get("visibility") == "private")
            )
            address = {"url": f"http://{self.headers['Host']}/{name}", "name": name}
            return self._answer(address, 409 if known else 200)
        name = "/".join(parts[2:4])
        if "preupload" in parts:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            return self._answer({"files": files})
        if "commit" in parts:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.repositories[name][entry["value"]["path"]] = content
            host = f"http://{self.headers['Host']}/{name}/commit/{self._find_commit(name)}"
            return self._answer(
                {"commitUrl": host, "commitOid": self._find_commit(name), "success": True}
            )
        self._answer({}, 200)  # validation of the README

    def do_GET(self) -> None:
        """Answer with a file, or with what a repository holds."""
        name, mark, rest = self.path.lstrip("/").partition("/resolve/")
        if not mark:
            name = "/".join(self.path.strip("/").split("/")[2:4])
            if name not in self.repositories:
                return self._answer({}, 404, X_Error_Code="RepoNotFound")
            files = [{"rfilename": f} for f in self.repositories[name]]
            return self._answer({"id": name, "sha": self._find_commit(name), "siblings": files})
        if name not in self.repositories:
            return self._answer({}, 404, X_Error_Code="RepoNotFound")
        content = self.repositories[name].get(rest.partition("/")[2])
        if content is None:
            return self._answer(
                {}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=self._find_commit(name)
            )
        digest = hashlib.sha256(content).hexdigest()
        self._answer(content, ETag=f'"{digest}"', X_Repo_Commit=self._find_commit(name))

    def _find_commit(self, name: str) -> str:
        """Return an id of what a repository holds."""
        return hashlib.sha1(repr(sorted(self.repositories[name].items())).encode()).hexdigest()

    do_HEAD = do_GET


@contextmanager
def serve_hub() -> Iterator[tuple[str, type[Hub]]]:
    """Yield the address of a running server and its class, whose ``repositories`` hold the files."""
    handler = type("Handler", (Hub,), {"repositories": {}, "private": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
