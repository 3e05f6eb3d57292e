"""A stand-in for the Hugging Face hub on loopback, with its repositories in memory.

It has the HTTP routes that `huggingface_hub` uses to create a repository, commit small files, and
download a snapshot.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """The server; `repositories` has the files of each by name, `headers` those of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.tokens: list[str | None] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.append(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if self.headers.get("Authorization") != "Bearer secret":
                return self._answer({"error": "Invalid username or password."}, status=401)
            self.server.repositories.setdefault(name, {})
            return self._answer({"url": f"{self.server.address}/{name}"})
        if self.path.startswith("/api/models/") and "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self._answer({"files": modes})
        if self.path.startswith("/api/models/") and "/commit/" in self.path:
            files = self.server.repositories[self._repository()]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    files[value["path"]] = base64.b64decode(value["content"])
            name = self._repository()
            url = f"{self.server.address}/{name}/commit/{self._commit(name)}"
            return self._answer({"commitUrl": url, "commitOid": self._commit(name)})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        self._answer({"error": self.path}, status=404)

    def do_HEAD(self):
        self._get(content=False)

    def do_GET(self):
        self._get(content=True)

    def _get(self, *, content: bool):
        if self.path.startswith("/api/models/"):
            name = self._repository()
            if (files := self.server.repositories.get(name)) is None:
                return self._missing()
            siblings = [{"rfilename": path} for path in files]
            tree = [
                {"type": "file", "path": path, "size": len(text), "oid": _hash(text)}
                for path, text in files.items()
            ]
            facts = {"id": name, "sha": self._commit(name), "siblings": siblings}
            return self._answer(tree if "/tree/" in self.path else facts)
        name, _, rest = self.path.removeprefix("/").partition("/resolve/")
        path = rest.partition("/")[2]
        text = self.server.repositories.get(name, {}).get(path)
        if text is None:
            return self._missing()
        headers = {"ETag": f'"{_hash(text)}"', "X-Repo-Commit": self._commit(name)}
        self._answer(text, headers=headers, content=content)

    def _repository(self) -> str:
        return "/".join(self.path.split("?")[0].split("/")[3:5])

    def _commit(self, name: str) -> str:
        files = sorted(self.server.repositories[name].items())
        return hashlib.sha1(repr(files).encode()).hexdigest()

    def _missing(self):
        headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        self._answer({"error": "Repository not found"}, status=404, headers=headers)

    def _answer(self, body, *, status=200, headers=(), content=True):
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if content:
            self.wfile.write(text)


def _hash(text: bytes) -> str:
    return hashlib.sha1(text).hexdigest()
