"""Tests push and from_pretrained with the Hub's own client and a local server."""

import os
import subprocess
import sys

import pytest

from lord_fast.cli import main
from lord_fast.lord import hub as lord_hub
from tests.hub import Hub
from tests.test_cli import fails
from tests.test_train import ROOT

NEEDS_CLIENT = "huggingface_hub is not installed: the hub extra"
LOAD = """
import sys, torch
from lord_fast import Lord
lord, run = Lord.from_pretrained("me/faces", device="cpu"), Lord(sys.argv[1], device="cpu")
assert lord.class_names == run.class_names
images = torch.rand(2, 1, 32, 32)
assert torch.equal(lord.translate(images, class_="3"), run.translate(images, class_="3"))
assert torch.equal(Lord("me/faces", device="cpu").content_codes, run.content_codes)
"""


@pytest.fixture
def server():
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


def run_with(server, tmp_path, *arguments, token="good") -> subprocess.CompletedProcess:
    """Run Python with the Hub's client pointed at the local server."""
    client = {
        "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env={**os.environ, **client},
        capture_output=True, text=True,
    )  # fmt: skip


def test_a_pushed_model_is_loaded_by_its_name(encoder_run, server, tmp_path):
    pytest.importorskip("huggingface_hub", reason=NEEDS_CLIENT)
    push = ("-m", "lord_fast", "push", encoder_run, "me/faces")
    found = run_with(server, tmp_path, *push, "--private", "--no-onnx", "--license", "cc-by-4.0")
    assert found.returncode == 0, found.stderr
    assert (
        f"{server.address}/me/faces: load it with Lord.from_pretrained('me/faces')" in found.stderr
    )
    files = server.models["me/faces"]
    assert set(files) == {
        "README.md", "class_names.json", "config.json", "model.safetensors", "swaps.png"
    }  # fmt: skip
    assert server.private == {"me/faces"}
    assert b"license: cc-by-4.0" in files["README.md"]
    assert b'Lord("me/faces")' in files["README.md"]
    loaded = run_with(server, tmp_path, "-c", LOAD, encoder_run)
    assert loaded.returncode == 0, loaded.stderr
    assert "me/faces: no such folder here, so this is me/faces from the Hugging Face Hub" in (
        loaded.stderr
    )


def test_refusals_of_the_hub_are_one_line(trained_run, server, tmp_path):
    pytest.importorskip("huggingface_hub", reason=NEEDS_CLIENT)
    push = ("-m", "lord_fast", "push", trained_run, "me/faces", "--no-onnx")
    found = run_with(server, tmp_path, *push, token="bad")
    assert found.returncode == 2
    assert found.stderr.startswith(
        "lord-fast push: me/faces: the Hugging Face Hub does not take it"
    )
    assert "hf auth login" in found.stderr
    assert len(found.stderr.splitlines()) == 1
    sample = ("-m", "lord_fast", "sample", "me/other", "--out", tmp_path / "new.png")
    found = run_with(server, tmp_path, *sample)
    assert found.returncode == 2
    assert "me/other: no such folder, and the Hugging Face Hub gives no such model" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_a_bad_name_or_no_client_is_said(trained_run, tmp_path, capsys, monkeypatch):
    assert "USER/MODEL" in fails(capsys, "push", trained_run, "faces", "--no-onnx")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "lord-fast[hub]" in fails(capsys, "push", trained_run, "me/faces")
    monkeypatch.chdir(tmp_path)
    error = fails(capsys, "sample", "runs/facs")
    assert "runs/facs: no such folder." in error
    assert "lord-fast[hub]" in error


def test_a_folder_is_never_taken_from_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lord_hub, "download", None)
    (tmp_path / "runs" / "faces").mkdir(parents=True)
    assert lord_hub.locate("runs/faces").as_posix() == "runs/faces"
    for name in ("faces", "/gone/faces", "../gone", "a/b/c"):
        assert lord_hub.locate(name).as_posix() == name
    assert main(["sample", "runs/faces", "--out", "new.png"]) == 2
