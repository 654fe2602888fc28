"""A Hugging Face Hub on this machine, over HTTP, as far as huggingface_hub asks for it."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    """``/api/models/<repo>[/revision/<revision>]`` and ``/<repo>/resolve/<revision>/<file>``."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server.hub
        path = unquote(self.path.partition("?")[0]).strip("/")
        if path.startswith("api/models/"):
            repo, _, revision = path.removeprefix("api/models/").partition("/revision/")
            self.answer_about(hub, repo, revision or "main")
        else:
            repo, _, rest = path.partition("/resolve/")
            revision, _, name = rest.partition("/")
            self.answer_with(hub, repo, revision, name)

    def answer_about(self, hub, repo, revision):
        files = self.files(hub, repo, revision)
        if files is not None:
            siblings = [{"rfilename": name} for name in sorted(files)]
            about = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}
            self.send(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def answer_with(self, hub, repo, revision, name):
        files = self.files(hub, repo, revision)
        if files is None:
            return
        if hub.gated == repo:
            self.send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif name not in files:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            hub.sent.append(name)
            etag = hashlib.sha256(files[name]).hexdigest()
            self.send(200, files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def files(self, hub, repo, revision):
        if repo not in hub.models:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in (*hub.revisions, COMMIT):
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return hub.models[repo]
        return None

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class FakeHub:
    """Serves ``models``, each a dict of files by name, until ``close``.

    Attributes:
        models: by ``<owner>/<name>``.
        revisions: that each of them has.
        gated: the model to which nobody has access.
        sent: names of files that were given out, or looked at.
    """

    def __init__(self, monkeypatch, cache: Path):
        self.models: dict[str, dict[str, bytes]] = {}
        self.revisions = ["main", "v2"]
        self.gated: str | None = None
        self.sent: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{self._server.server_port}"
        constants = "huggingface_hub.constants"
        monkeypatch.setattr(f"{constants}.ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
