"""A hub of data sets on this machine, with byte ranges, that counts what it sends.

It speaks as much of the real hub's protocol as the datasets library asks for when it streams.
"""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.small_hub import COMMIT, Hub


class DataHub(Hub):
    """``root/OWNER/NAME`` is a data set's repository."""

    sent: list[int]

    def do_POST(self) -> None:  # noqa: N802 - http.server finds it by this name
        """paths-info: what is known of each path that is asked for."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
        folder = self.root / "/".join(self._parts()[:2])
        known = [entry for entry in self._tree(folder) if entry["path"] in paths]
        self._json(known, body=True)

    def _parts(self) -> list[str]:
        path = unquote(urlsplit(self.path).path).strip("/")
        return path.removeprefix("api/").removeprefix("datasets/").split("/")

    def _answer(self, body: bool) -> None:
        parts = self._parts()
        self.asked.append("/".join(parts))
        name, folder = "/".join(parts[:2]), self.root / "/".join(parts[:2])
        if name.startswith("broken/"):
            return self._send(500, b"", {}, body)
        if not folder.is_dir():
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        match parts[2:]:
            case [] | ["revision", _]:
                return self._json(self._info(name, folder), body)
            case ["tree", _, *below]:
                return self._list(folder, "/".join(below), body)
            case ["resolve", _, *below] if (folder / "/".join(below)).is_file():
                return self._ranged((folder / "/".join(below)).read_bytes(), body)
        return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)

    def _info(self, name: str, folder: Path) -> dict[str, Any]:
        files = [{"rfilename": entry["path"]} for entry in self._tree(folder)]
        return {"id": name, "sha": COMMIT, "siblings": files, "tags": [], "private": False}

    def _list(self, folder: Path, below: str, body: bool) -> None:
        entries = [entry for entry in self._tree(folder) if str(entry["path"]).startswith(below)]
        if below and not entries:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        return self._json(entries, body)

    def _ranged(self, data: bytes, body: bool) -> None:
        headers = {"ETag": f'"{len(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes="):
            return self._counted(200, data, headers, body)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self._counted(206, data[start : end + 1], headers, body)

    def _counted(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        if not body:
            return self._send(status, data, headers, body)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            for at in range(0, len(data), 65536):
                self.wfile.write(data[at : at + 65536])
                self.sent.append(min(65536, len(data) - at))
        except OSError:  # the reader has what it wanted and hung up
            self.close_connection = True
        return None


def serve(root: Path) -> tuple[http.server.ThreadingHTTPServer, str, list[int]]:
    """A running hub over ``root``, its address, and the growing list of bytes that it sent."""
    sent: list[int] = []
    handler = type("DataHubOf", (DataHub,), {"root": root, "asked": [], "sent": sent})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}", sent
