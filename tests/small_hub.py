"""A hub of a few repositories on this machine, which speaks as much of the real one's protocol as
fetching files takes."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """``root/OWNER/NAME`` is a repository; "gated/..." asks for a log-in, "broken/..." fails."""

    root: Path
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = urlsplit(self.path).path.strip("/")
        self.asked.append(path)
        parts = path.removeprefix("api/models/").split("/")
        name = "/".join(parts[:2])
        if name.startswith("gated/"):
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        if name.startswith("broken/"):
            return self._send(500, b"", {}, body)
        if not (self.root / name).is_dir():
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        if parts[2:4] == ["revision", "main"]:
            return self._json({"id": name, "sha": COMMIT, "siblings": []}, body)
        if parts[2] == "revision":
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        if parts[2] == "tree":
            return self._json(self._tree(self.root / name), body)
        file = self.root / name / "/".join(parts[4:])
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        data = file.read_bytes()
        tag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        return self._send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, body)

    @staticmethod
    def _tree(folder: Path) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": file.relative_to(folder).as_posix(),
                "size": file.stat().st_size,
                "oid": hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest(),
            }
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]

    def _json(self, value: object, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


def serve(root: Path) -> tuple[http.server.ThreadingHTTPServer, str, list[str]]:
    """A running hub over ``root``, its address, and the list of paths that it was asked for."""
    asked: list[str] = []
    handler = type("HubOf", (Hub,), {"root": root, "asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}", asked
