"""Tests that every file that a verb writes is read by another, and that nothing is overwritten."""

import inspect
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lord_fast import Lord
from lord_fast.cli import VERBS, main
from lord_fast.data.names import short_names
from lord_fast.data.pairs import true_images
from lord_fast.data.store import ImageStore, as_float
from lord_fast.run.codes import load_codes
from tests.test_cli import fails, folder_of


@pytest.fixture(scope="module")
def photos(glyph_store, tmp_path_factory):
    """A folder with three images of the store."""
    folder = tmp_path_factory.mktemp("photos")
    store = ImageStore(glyph_store)
    for i in range(3):
        Image.fromarray(store.pixels[i, :, :, 0].numpy()).save(folder / f"image-{i}.png")
    return folder


def grey(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("L"))


def tile_at(picture: np.ndarray, row: int, column: int, apart: int = 0) -> np.ndarray:
    """Return a tile of a grid of 32 px images, counted from the lower right corner."""
    y, x = picture.shape[0] - 66 * row - apart, picture.shape[1] - 66 * column - apart
    return picture[y : y + 64 : 2, x : x + 64 : 2] / 255


def close(tile: np.ndarray, image: torch.Tensor) -> bool:
    return bool(np.abs(tile - image[0].numpy()).max() < 1 / 255 + 1e-6)


def test_no_two_verbs_write_the_same_file_by_default():
    functions = [getattr(verb, name.replace("-", "_")) for name, verb in VERBS.items()]
    flags = [inspect.signature(function).parameters.get("out") for function in functions]
    outs = [flag.default for flag in flags if flag and flag.default is not inspect.Parameter.empty]
    assert len(outs) == 6
    assert max(Counter(outs).values()) == 1


@pytest.mark.parametrize("verb", ["encode", "fit", "translate", "interpolate", "sample", "decode"])
def test_nothing_is_overwritten_unasked(encoder_run, photos, tmp_path, capsys, verb):
    codes, out = tmp_path / "codes.npz", tmp_path / "out.png"
    if verb == "decode":
        assert main(["encode", str(encoder_run), str(photos), "--out", str(codes)]) == 0
    command = {
        "encode": [verb, encoder_run, photos],
        "fit": [verb, encoder_run, photos, "--steps", "1"],
        "translate": [verb, encoder_run, "--content", "1", "--class", "3"],
        "interpolate": [verb, encoder_run, "1", "30", "--steps", "2"],
        "sample": [verb, encoder_run, "-n", "2", "--density", "training"],
        "decode": [verb, encoder_run, codes],
    }[verb]
    command = [str(word) for word in (*command, "--out", out)]
    out.write_text("a thesis")
    error = fails(capsys, *command)
    assert f"{out}: exists already; give another file, or add --overwrite" in error
    assert out.read_text() == "a thesis"
    assert main([*command, "--overwrite"]) == 0
    assert Image.open(out).format == "PNG"
    shutil.move(out, tmp_path / "other.jpg")
    assert main([*command[:-1], str(tmp_path / "new.jpg")]) == 0
    assert Image.open(tmp_path / "new.jpg").format == "JPEG"
    error = fails(capsys, *command[:-1], tmp_path / "out.txt")
    assert "out.txt: the suffix decides what is written" in error
    assert not (tmp_path / "out.txt").exists()


def test_codes_of_every_verb_are_decoded(encoder_run, photos, tmp_path):
    """`decode` shows what the verb itself would have drawn."""
    lord = Lord(encoder_run, device="cpu")
    commands = {
        "encode": ["encode", encoder_run, photos],
        "fit": ["fit", encoder_run, photos, "--steps", "2"],
        "translate": ["translate", encoder_run, "--content", "1", "2", "--class", "3", "5"],
        "interpolate": ["interpolate", encoder_run, "1", "30", "--steps", "2"],
        "sample": ["sample", encoder_run, "-n", "3", "--density", "training"],
    }
    for verb, command in commands.items():
        codes, out = tmp_path / f"{verb}.npz", tmp_path / f"{verb}.png"
        assert main([str(word) for word in (*command, "--out", codes)]) == 0
        assert main(["decode", str(encoder_run), str(codes), "--out", str(out)]) == 0
        found = load_codes(codes)
        assert found.stage == ("encoders" if verb == "encode" else "latent")
        made = lord.decode(
            *(torch.from_numpy(part) for part in (found.content, found.class_)), found.stage
        )
        for i in range(len(made)):
            assert close(tile_at(grey(out), 1, len(made) - i), made[i]), (verb, i)
    found = load_codes(tmp_path / "translate.npz")
    assert found.names == [
        f"{c}--{i}" for c in ("3", "5") for i in ("DejaVuSans 30", "DejaVuSans-Bold 0")
    ]
    torch.testing.assert_close(torch.from_numpy(found.content[3]), lord.content_codes[2])
    torch.testing.assert_close(torch.from_numpy(found.class_[3]), lord.class_codes[5])


def test_decode_combines_codes_with_classes_and_images(encoder_run, photos, tmp_path, capsys):
    lord = Lord(encoder_run, device="cpu")
    codes, out = tmp_path / "person.npz", tmp_path / "out.png"
    fit = ["fit", str(encoder_run), str(photos), "--new-class", "--steps", "2"]
    assert main([*fit, "--out", str(codes)]) == 0
    words = ["--content", "image-1", "2", "3/DejaVuSans/30", "--class", "person", "4"]
    command = ["decode", str(encoder_run), str(codes), "--out", str(out)]
    error = fails(capsys, *command, *words)
    assert "person: no such file, class or image" in error
    words = ["--content", "image-1", "2", "3/DejaVuSans/30", "--class", str(codes), "4"]
    assert main([*command, *words]) == 0
    found = load_codes(codes)
    picture = grey(out)
    contents = [*torch.from_numpy(found.content[1:3]), lord.content_codes[61]]
    for row, class_ in enumerate((torch.from_numpy(found.class_[0]), lord.class_codes[4])):
        for column, content in enumerate(contents):
            made = lord.decode(content[None], class_[None], "latent")[0]
            assert close(tile_at(picture, 2 - row, 3 - column), made)


def test_a_person_from_a_few_photos_in_one_command(trained_run, glyph_store, photos, tmp_path):
    """The photos, their reconstructions, and beside them the person with contents of training."""
    out, codes = tmp_path / "person.png", tmp_path / "person.npz"
    command = ["fit", str(trained_run), str(photos), "--new-class", "--steps", "5", "--out"]
    assert main([*command, str(out)]) == 0
    assert main([*command, str(codes)]) == 0
    lord, found, picture = Lord(trained_run, device="cpu"), load_codes(codes), grey(out)
    class_ = torch.from_numpy(found.class_)
    made = lord.decode(torch.from_numpy(found.content), class_.expand(3, -1), "latent")
    store = ImageStore(glyph_store)
    for i in range(3):
        assert close(tile_at(picture[:, :-4], 1, 11 - i)[:, :32], made[i])
        assert close(
            tile_at(picture[:, :-4], 2, 11 - i)[:, :32],
            as_float(store.images(torch.tensor([i])))[0],
        )
    order = torch.randperm(160, generator=torch.Generator().manual_seed(0))[:8]
    relit = lord.decode(lord.content_codes[order], class_.expand(8, -1), "latent")
    for i in range(8):
        assert close(tile_at(picture, 1, 8 - i), relit[i])


def test_true_images_stand_below_what_was_made(encoder_run, glyph_store, tmp_path):
    store, out = ImageStore(glyph_store), tmp_path / "out.png"
    command = ["translate", str(encoder_run), "--content", "0", "1", "--class", "2", "4"]
    assert main([*command, "--out", str(out)]) == 0
    picture = grey(out)
    ids = true_images(store, torch.tensor([2, 4]), torch.tensor([0, 1]))
    assert ids.tolist() == [[40, 41], [80, 81]]
    lord = Lord(encoder_run, device="cpu")
    for column in range(2):
        true = as_float(store.images(ids[1, column : column + 1]))[0]
        made = lord.translate(column, class_="4")[0]
        assert close(tile_at(picture, 1, 2 - column), true)
        assert close(tile_at(picture, 2, 2 - column), made)


def test_true_images_that_are_missing_are_marked(glyph_store):
    store = ImageStore(glyph_store)
    store.content_ids = store.content_ids.clone()
    store.content_ids[40] = torch.tensor([9, 0])
    found = true_images(store, torch.tensor([2]), torch.tensor([0, 1]))
    assert found.tolist() == [[-1, 41]]


def test_singles_do_not_mix_with_other_files(encoder_run, tmp_path, capsys):
    singles = tmp_path / "singles"
    singles.mkdir()
    (singles / "mine.txt").touch()
    command = ["translate", encoder_run, "--content", "0", "--class", "2"]
    out = ("--out", tmp_path / "out.png", "--singles", singles)
    assert "has files already" in fails(capsys, *command, *out)
    assert not (tmp_path / "out.png").exists()
    assert main([str(word) for word in (*command, *out, "--overwrite")]) == 0
    assert {file.name for file in singles.iterdir()} == {
        "mine.txt", "000-2--000-DejaVuSans_0.png"
    }  # fmt: skip


def test_short_names_tell_files_apart():
    assert short_names([Path("a/1.png"), Path("a/2.png")]) == ["1", "2"]
    assert short_names([Path("x/a/1.png"), Path("x/b/1.png")]) == ["a/1", "b/1"]
    assert short_names([Path("a/1.png"), Path("a/1.png")]) == ["1", "1"]


def test_an_unpacked_store_packs_to_the_same_images(glyph_store, tmp_path, capsys):
    folder, again = tmp_path / "folder", tmp_path / "again"
    assert main(["unpack", str(glyph_store), str(folder)]) == 0
    assert "160 images" in capsys.readouterr().err
    assert (folder / "3" / "DejaVuSans_30.png").is_file()
    assert main(["pack", str(folder), str(again), "--size", "32"]) == 0
    old, new = ImageStore(glyph_store), ImageStore(again)
    assert new.class_names == old.class_names
    of_old = {(int(c), p.numpy().tobytes()) for c, p in zip(old.class_ids, old.pixels, strict=True)}
    assert of_old == {
        (int(c), p.numpy().tobytes()) for c, p in zip(new.class_ids, new.pixels, strict=True)
    }
    assert "exists already" in fails(capsys, "unpack", glyph_store, folder)


def test_an_encoded_store_gives_its_original_files(tmp_path):
    source = folder_of(tmp_path / "images", {"a": 2, "b": 2}, (40, 30))
    Image.new("RGB", (40, 30), "red").save(source / "b" / "x.jpeg")
    store, folder = tmp_path / "store", tmp_path / "folder"
    assert main(["pack", str(source), str(store), "--size", "16", "--encoded"]) == 0
    assert main(["unpack", str(store), str(folder)]) == 0
    for file in source.rglob("*.*"):
        place = folder / file.relative_to(source).with_suffix(
            ".jpg" if file.suffix == ".jpeg" else file.suffix
        )
        assert place.read_bytes() == file.read_bytes()


def test_hostile_names_stay_in_the_folder(tmp_path, monkeypatch):
    from lord_fast.data import unpack

    source = folder_of(tmp_path / "images", {"a": 1, "b": 1, "c": 1})
    assert main(["pack", str(source), str(tmp_path / "store"), "--size", "16"]) == 0
    names = ["../../up", "..", "x/y"]
    opened = ImageStore(tmp_path / "store")
    opened.class_names, opened.factors = names, {}
    opened.content_ids = opened.content_ids[:, :0]
    monkeypatch.setattr(unpack, "ImageStore", lambda path: opened)
    monkeypatch.setattr(unpack, "read_names", lambda store: ["../../e.png", "/etc/f", "g\x00"])
    assert unpack.unpack(tmp_path / "store", tmp_path / "out") == 3
    found = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")
    )
    assert found == ["_.._up/e.png", "_/f.png", "x_y/g_.png"]
