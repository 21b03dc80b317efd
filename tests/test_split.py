"""Tests that the parts of a store are disjoint, complete, stratified and seeded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lord_fast.cli import main
from lord_fast.data.store import ImageStore
from tests.test_cli import fails, packed


def rows_of(store: Path) -> list[dict]:
    return [json.loads(line) for line in (store / "index.jsonl").open()]


def split(store: Path, out: Path, *flags: str) -> tuple[ImageStore, ImageStore]:
    parts = out / "train", out / "test"
    assert main(["split", str(store), *map(str, parts), *flags]) == 0
    return ImageStore(parts[0]), ImageStore(parts[1])


@pytest.mark.parametrize("flags", [("--images", "0.25"), ("--classes", "3")])
def test_the_parts_are_disjoint_and_complete(glyph_store, tmp_path, flags):
    parts = split(glyph_store, tmp_path, *flags)
    whole = {row["name"]: row for row in rows_of(glyph_store)}
    names = [[row["name"] for row in rows_of(part.path)] for part in parts]
    assert not set(names[0]) & set(names[1])
    assert {*names[0], *names[1]} == set(whole)
    store = ImageStore(glyph_store)
    for part in parts:
        assert [row["id"] for row in rows_of(part.path)] == list(range(part.num_images))
        for i, row in enumerate(rows_of(part.path)):
            original = whole[row["name"]]
            assert {**row, "id": 0} == {**original, "id": 0}
            assert part.class_names[part.class_ids[i]] == row["class"]
            assert torch.equal(part.pixels[i], store.pixels[original["id"]])
            labels = [
                values[j]
                for values, j in zip(part.factors.values(), part.content_ids[i], strict=True)
            ]
            assert labels == list(row["content"].values())
        ids = [whole[row["name"]]["id"] for row in rows_of(part.path)]
        assert ids == sorted(ids)


def test_images_are_stratified_and_seeded(glyph_store, tmp_path):
    first = split(glyph_store, tmp_path / "a", "--images", "0.1", "--seed", "3")[1]
    again = split(glyph_store, tmp_path / "b", "--images", "0.1", "--seed", "3")[1]
    other = split(glyph_store, tmp_path / "c", "--images", "0.1", "--seed", "4")[1]
    assert torch.bincount(first.class_ids).tolist() == [2] * 8
    assert first.class_names == ImageStore(glyph_store).class_names
    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256


def test_classes_are_held_out_whole(glyph_store, tmp_path):
    trained, held_out = split(glyph_store, tmp_path, "--classes", "3")
    assert not set(trained.class_names) & set(held_out.class_names)
    assert (trained.num_classes, held_out.num_classes) == (5, 3)
    assert np.bincount(held_out.class_ids.numpy()).tolist() == [20] * 3


def test_impossible_splits_are_refused(glyph_store, tmp_path, capsys):
    parts = tmp_path / "train", tmp_path / "test"
    assert "must be more than 0 and less than 1" in fails(
        capsys, "split", glyph_store, *parts, "--images", "1"
    )
    assert "two must stay" in fails(capsys, "split", glyph_store, *parts, "--classes", "7")
    assert "either --classes" in fails(capsys, "split", glyph_store, *parts)
    assert "different folders" in fails(
        capsys, "split", glyph_store, parts[0], parts[0], "--classes", "1"
    )
    for inner in (parts[0] / "t", tmp_path / "train.partial" / "t"):
        for pair in ((parts[0], inner), (inner, parts[0])):
            assert "side by side" in fails(capsys, "split", glyph_store, *pair, "--classes", "1")
            assert list(tmp_path.iterdir()) == []
    assert "not a packed store" in fails(capsys, "split", tmp_path, *parts, "--classes", "1")
    parts[1].mkdir()
    assert "exists already" in fails(capsys, "split", glyph_store, *parts, "--classes", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["test"]
    single = packed(tmp_path / "x", {"a": 3, "b": 1})
    error = fails(capsys, "split", single, tmp_path / "t", tmp_path / "u", "--images", "0.5")
    assert "one image of b" in error
