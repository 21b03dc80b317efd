"""Tests that sealed JSON is noticed when it changes."""

import json

import pytest

from lord_fast.run import metrics
from lord_fast.run.history import read_history, record_command
from lord_fast.run.stats import append_stats, forget_after, read_stats
from lord_fast.seal import seal, unseal

ROW = {"stage": "latent", "step": 8, "reconstruction": 0.25, "lr": 1e-3, "skipped": [3]}


def test_a_seal_is_removed_and_a_change_is_refused():
    content = {2: "keys need not be text", "10": [0.1, None], "a": {"nan": float("inf")}}
    read = json.loads(json.dumps(seal(content)))
    assert unseal(read, "x.json") == json.loads(json.dumps(content))
    read["10"][0] = 0.2
    with pytest.raises(ValueError, match=r"x\.json: damaged"):
        unseal(read, "x.json")


def test_files_of_versions_without_seals_are_read(tmp_path):
    (tmp_path / "stats.jsonl").write_text(json.dumps(ROW) + "\n")
    assert read_stats(tmp_path / "stats.jsonl") == [ROW]


def test_a_changed_digit_of_the_statistics_is_refused(tmp_path):
    file = tmp_path / "stats.jsonl"
    append_stats(file, ROW)
    append_stats(file, ROW | {"step": 16})
    forget_after(file, "latent", 16)
    assert read_stats(file) == [ROW, ROW | {"step": 16}]
    file.write_text(file.read_text().replace('"step": 16', '"step": 15'))
    with pytest.raises(ValueError, match="line 2 is damaged"):
        read_stats(file)


def test_a_changed_command_is_left_out(tmp_path):
    record_command(tmp_path, ["train", "a"])
    record_command(tmp_path, ["train", "b"])
    file = tmp_path / "history.jsonl"
    file.write_text(file.read_text().replace("train a", "train c"))
    assert read_history(tmp_path) == ["lord-fast train b"]


def test_a_changed_metric_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "title", lambda values: "")
    monkeypatch.setattr(metrics, "rows", lambda values: [])
    monkeypatch.setattr(metrics, "judge", lambda values: [])
    file = tmp_path / "metrics.json"
    metrics.save_metrics(file, {"seed": 0})
    assert metrics.read_metrics(tmp_path)[0].values == {"seed": 0}
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="damaged"):
        metrics.read_metrics(tmp_path)
