"""A local server that speaks the part of the Hugging Face Hub's protocol that lord-fast uses."""

import base64
import hashlib
import http.server
import json
import threading
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Keeps the files of models in memory.

    Attributes:
        models: Name of a model -> name of a file -> content.
        private: Names of private models.
        uploads: sha256 -> content of large files before their commit.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.uploads: dict[str, bytes] = {}
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def reply(self, status=200, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def path_parts(self) -> list[str]:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        return path.strip("/").split("/")

    def do_POST(self):  # noqa: C901
        body = self.body()
        match self.path_parts():
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                if self.headers.get("Authorization") != "Bearer good":
                    return self.reply(401, {"error": "Invalid credentials"})
                self.server.models.setdefault(name, {})
                if asked.get("private") or asked.get("visibility") == "private":
                    self.server.private.add(name)
                return self.reply(200, {"url": f"{self.server.address}/{name}"})
            case ["api", "validate-yaml"]:
                return self.reply(200, {"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", _]:
                files = [
                    {**each, "uploadMode": "lfs" if each["size"] > 10_000 else "regular",
                     "shouldIgnore": False, "oid": None}
                    for each in json.loads(body)["files"]
                ]  # fmt: skip
                return self.reply(200, {"files": files})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [
                    {**each, "actions": {"upload": {
                        "href": f"{self.server.address}/upload/{each['oid']}", "header": {},
                    }}}
                    for each in json.loads(body)["objects"]
                ]  # fmt: skip
                return self.reply(200, {"transfer": "basic", "objects": objects})
            case ["api", "models", user, model, "commit", _]:
                files = self.server.models[f"{user}/{model}"]
                for line in body.splitlines():
                    entry = json.loads(line)
                    value = entry["value"]
                    if entry["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif entry["key"] == "lfsFile":
                        files[value["path"]] = self.server.uploads[value["oid"]]
                url = f"{self.server.address}/{user}/{model}/commit/{COMMIT}"
                return self.reply(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})
        return self.reply(404, {"error": f"no {self.path}"})

    def do_PUT(self):
        body = self.body()
        digest = self.path_parts()[1]
        assert hashlib.sha256(body).hexdigest() == digest
        self.server.uploads[digest] = body
        return self.reply()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        match self.path_parts():
            case ["api", "models", user, model, "tree", _]:
                files = self.server.models[f"{user}/{model}"]
                listed = [
                    {"type": "file", "path": path, "size": len(content),
                     "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in files.items()
                ]  # fmt: skip
                return self.reply(200, listed)
            case ["api", "models", user, model, *_] if f"{user}/{model}" in self.server.models:
                name = f"{user}/{model}"
                siblings = [{"rfilename": file} for file in self.server.models[name]]
                return self.reply(
                    200, {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings,
                          "private": name in self.server.private, "tags": [], "downloads": 0,
                          "likes": 0},
                )  # fmt: skip
            case [user, model, "resolve", _, file] if file in self.server.models.get(
                f"{user}/{model}", {}
            ):
                content = self.server.models[f"{user}/{model}"][file]
                etag = hashlib.sha256(content).hexdigest()
                return self.reply(200, content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
        return self.reply(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
