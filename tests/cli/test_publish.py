"""`align-bench publish` against a stand-in of the hub's API: what is sent, with which token, and only after a yes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from align_bench.models.exported import Exported, write_note
from align_bench.report.export import REPORT, read_report

TOKEN = "hf_of_the_test"
REPORTS = Path(__file__).parents[2] / "reports" / "published"


class Hub(ThreadingHTTPServer):
    """As much of the hub as creating a repository and a commit needs.

    Attributes:
        asked: each request's method and path.
        created: what repositories were asked for.
        files: path in the repository → content, of all commits.
        commits: the repository and message of each.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.commits: list[tuple[str, str]] = []
        self.stored: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, code: int, content: Any = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        self.server.asked.append(f"{self.command} {self.path}")
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        self._body()
        self._answer(404, {"error": "not here"})

    def do_PUT(self) -> None:
        content = self._body()
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.server.stored[self.path.rpartition("/")[2]] = content
        self._answer(200)

    def do_POST(self) -> None:
        content, hub, path = self._body(), self.server, self.path.partition("?")[0]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            asked = json.loads(content)
            hub.created.append(asked)
            kind = "datasets/" if asked.get("type") == "dataset" else ""
            self._answer(200, {"url": f"{hub.address}/{kind}me/{asked['name']}"})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(content)["files"]
            ]
            self._answer(200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/lfs/{one['oid']}"}}}
                for one in json.loads(content)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        else:
            self._commit(path, content)

    def _commit(self, path: str, content: bytes) -> None:
        match = re.fullmatch(r"/api/((?:models|datasets)/.+)/commit/main", path)
        assert match is not None, path
        for line in map(json.loads, content.decode().splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append((match[1], value["summary"]))
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.stored[value["oid"]]
            else:
                self.server.files[value["path"]] = base64.b64decode(value["content"])
        url = f"{self.server.address}/{match[1].removeprefix('models/')}/commit/{'1' * 40}"
        self._answer(200, {"commitUrl": url, "commitOid": "1" * 40, "hookOutput": ""})


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks exported."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# dpo\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    (folder / ".hidden").write_text("mine", encoding="utf-8")
    write_note(folder, _note())
    return folder


def _note(form: Any = "merged") -> Exported:
    return Exported(
        kind="policy",
        form=form,
        base="embedded/tiny",
        base_digest="0",
        storage="fp32",
        dtype="float32",
        max_length=8,
    )


def publish(
    hub: Hub | str, *arguments: object, told: str = "y\n", token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the library reads its environment once."""
    where = hub if isinstance(hub, str) else hub.address
    own = {"HF_ENDPOINT": where, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "COLUMNS": "200"}
    code = "from align_bench.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "publish", *map(str, arguments)],
        input=told,
        capture_output=True,
        text=True,
        env={**os.environ, **own},
        check=False,
        timeout=120,
    )


def is_private(created: dict[str, Any]) -> bool:
    """What a request asks for; releases of the library say it in two ways."""
    return bool(created["private"]) if "private" in created else bool(created["visibility"] == "private")


def test_a_model_is_pushed_whole_to_a_private_repository(hub: Hub, model: Path) -> None:
    done = publish(hub, model, "--repo", "me/dpo")
    assert done.returncode == 0, done.stderr
    assert f"pushed: {hub.address}/me/dpo" in done.stdout
    (created,) = hub.created
    assert (created["name"], created.get("type") or "model", is_private(created)) == ("dpo", "model", True)
    assert hub.commits == [("models/me/dpo", "policy, merged, by align-bench")]
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.name != ".hidden"}
    assert hub.files == files


def test_nothing_is_sent_without_a_yes(hub: Hub, model: Path) -> None:
    done = publish(hub, model, "--repo", "me/dpo", told="n\n")
    assert done.returncode == 1
    assert "3 files" in done.stdout
    assert "model repository me/dpo" in done.stdout
    assert hub.asked == []


def test_a_report_becomes_a_data_set_with_its_page(hub: Hub) -> None:
    folder = REPORTS / "assignment"
    done = publish(hub, folder, "--repo", "me/report", "--public", "--yes", told="")
    assert done.returncode == 0, done.stderr
    (created,) = hub.created
    assert (created["type"], is_private(created)) == ("dataset", False)
    assert hub.commits == [
        ("datasets/me/report", f"Report of the suite {read_report(folder).suite.name}, by align-bench")
    ]
    assert hub.files[REPORT] == (folder / REPORT).read_bytes()
    assert hub.files["README.md"] == (folder / "report.md").read_bytes()
    assert any(path.startswith("figures/") for path in hub.files)


def test_an_adapter_that_nobody_else_can_load_is_told_before_the_question(hub: Hub, model: Path) -> None:
    write_note(model, _note("adapter"))
    done = publish(hub, model, "--repo", "me/dpo", told="n\n")
    assert "others cannot load it: it stands on embedded/tiny" in done.stdout


def test_a_refusal_of_the_hub_is_told(hub: Hub, model: Path) -> None:
    done = publish(hub, model, "--repo", "me/dpo", "--yes", token="hf_wrong")
    assert done.returncode == 2
    assert "401" in done.stderr
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.files == {}


def test_a_hub_that_is_not_there_is_told(model: Path) -> None:
    done = publish("http://127.0.0.1:9", model, "--repo", "me/dpo", "--yes")
    assert done.returncode == 2
    assert "me/dpo cannot be pushed to http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["a/b/c", "me/--dpo", ""])
def test_a_name_that_is_none_is_told_before_the_question(name: str, hub: Hub, model: Path) -> None:
    done = publish(hub, model, "--repo", name)
    assert done.returncode == 2
    assert f"{name!r} is not the name of a repository" in done.stderr
    assert "Push it?" not in done.stdout
    assert hub.asked == []


def test_another_folder_is_refused(hub: Hub, tmp_path: Path) -> None:
    done = publish(hub, tmp_path, "--repo", "me/x", "--yes")
    assert done.returncode == 2
    assert "neither an exported model nor a report" in done.stderr
    assert hub.asked == []
