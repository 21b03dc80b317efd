"""Tests the evaluation of runs: held-out images, held-out classes and refusals."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from lord_fast.bench.step import random_weights
from lord_fast.cli import main
from lord_fast.data.store import ImageStore
from lord_fast.evaluate.code_sources import EncoderCodes
from lord_fast.evaluate.evaluate import evaluate
from lord_fast.evaluate.new_classes import draw_targets
from lord_fast.evaluate.transfer import draw_pairs
from lord_fast.lord import Lord
from lord_fast.run.metrics import rows
from tests.test_cli import fails, packed
from tests.test_train import train


def test_a_run_without_perceptual_weights_accepts_weights(trained_run, tmp_path, quick, capsys):
    """The weights and their input enable the perceptual distance and samples."""
    run, weights = tmp_path / "run", tmp_path / "vgg16.safetensors"
    shutil.copytree(trained_run, run)
    save_file(random_weights(), weights)
    found = []
    for extra in ((), ("--perceptual-input", "imagenet")):
        assert main(["evaluate", str(run), "--perceptual-weights", str(weights), *extra]) == 0
        found.append(json.loads((run / "metrics.json").read_text()))
    for metrics in found:
        assert metrics["reconstruction"]["perceptual"] > 0
        assert metrics["transfer"]["perceptual"] > 0
        assert metrics["samples"]["images"] == 20
        assert {"real", "mixture", "training", "mixture_new_classes"} < set(metrics["samples"])
    caffe, imagenet = (metrics["reconstruction"]["perceptual"] for metrics in found)
    assert caffe != imagenet
    assert [m["perceptual_is"] for m in found] == ["lpips_equal_heads", "lpips"]
    error = fails(capsys, "evaluate", run, "--perceptual-input", "imagenet")
    assert "--perceptual-weights" in error


def test_encoder_codes_of_held_out_images(encoder_run, glyph_store, tmp_path):
    run, parts = tmp_path / "run", (tmp_path / "train", tmp_path / "heldout")
    shutil.copytree(encoder_run, run)
    assert main(["split", str(glyph_store), *map(str, parts), "--images", "0.4"]) == 0
    assert main(["evaluate", str(run), "--codes", "encoder", "--store", str(parts[1])]) == 0
    assert [path.name for path in run.glob("metrics*")] == ["metrics-encoder-heldout.json"]
    found = json.loads((run / "metrics-encoder-heldout.json").read_text())
    assert (found["codes"], found["images"]) == ("encoder", 64)
    assert found["leakage"]["class_from_content"]["chance"] < 0.2
    by_training = found["leakage"]["class_from_content_trained_on_run"]
    assert (by_training["trained_on"], by_training["scored_on"]) == (160, 64)
    assert by_training["chance"] == pytest.approx(1 / 8)
    assert by_training["split"] == "the run's store, contents held out"
    low, high = found["transfer"]["interval"]["psnr"]
    assert low < found["transfer"]["psnr"] < high


def test_probes_trained_on_the_run_need_its_images(encoder_run, glyph_store, tmp_path, quick):
    """Without these images, or for unknown classes, the file and the table give the reason."""
    run, parts = tmp_path / "run", (tmp_path / "train", tmp_path / "heldout")
    shutil.copytree(encoder_run, run)
    assert main(["split", str(glyph_store), *map(str, parts), "--images", "0.4"]) == 0
    other = packed(tmp_path, {"a": 4, "b": 4})

    def missing(store):
        assert main(["evaluate", str(run), "--codes", "encoder", "--store", str(store)]) == 0
        found = json.loads((run / f"metrics-encoder-{store.name}.json").read_text())
        why = found["leakage"]["class_from_content_trained_on_run"]["missing"]
        row = "leakage: class from content trained on run"
        assert (row, "not measured", why) in rows(found)
        return why

    assert "not trained on class" in missing(other)
    config = run / "config.yaml"
    _, text = config.read_text().split("\n", 1)  # its hash goes, since it is edited on purpose
    config.write_text(text.replace(str(glyph_store.resolve()), str(tmp_path / "no")))
    assert "gone" in missing(parts[1])


def test_encoder_transfer_does_not_use_its_target(encoder_run, glyph_store):
    """Class and content come from two images other than the true one."""
    store, asked = ImageStore(glyph_store), []
    codes = EncoderCodes(Lord.load(encoder_run, device="cpu"), store)

    class Spy:
        name, lord = "encoder", codes.lord

        def __call__(self, image_ids):
            asked.append(image_ids)
            return codes(image_ids)

    pairs = draw_pairs(store, 0)
    assert evaluate(Spy(), store, None)["transfer"]["pairs"] == len(pairs.target)
    content = torch.cat(asked[-2::-2][::-1])[-len(pairs.target) :]
    class_ = torch.cat(asked[-1::-2][::-1])[-len(pairs.target) :]
    assert torch.equal(content, pairs.content)
    assert torch.equal(class_, pairs.class_image)


def test_new_classes_use_only_their_shots(glyph_store, tmp_path):
    assert main(
        ["split", str(glyph_store), str(tmp_path / "a"), str(tmp_path / "b"), "--classes", "2"]
    ) == 0  # fmt: skip
    trained, held_out = ImageStore(tmp_path / "a"), ImageStore(tmp_path / "b")
    drawn = draw_targets(held_out, trained, shots=5, seed=0)
    assert drawn.shots.shape == (2, 5)
    assert len(drawn.target) == 2 * 15
    assert not set(drawn.target.tolist()) & set(drawn.shots.flatten().tolist())
    assert torch.equal(held_out.class_ids[drawn.target], drawn.class_)
    assert torch.equal(held_out.class_ids[drawn.shot], drawn.class_)
    assert torch.equal(held_out.content_ids[drawn.target], trained.content_ids[drawn.content])
    with pytest.raises(ValueError, match="--shots 20"):
        draw_targets(held_out, trained, shots=20, seed=0)


def test_evaluate_of_held_out_classes(glyph_store, tmp_path, capsys):
    """A class code is fitted to five images, combined with contents and compared with truth."""
    trained, held_out, run = tmp_path / "train", tmp_path / "people", tmp_path / "run"
    assert main(["split", str(glyph_store), str(trained), str(held_out), "--classes", "2"]) == 0
    assert train(trained, run, "--threads", "1") == 0
    command = ["evaluate", str(run), "--codes", "fit", "--fit-steps", "5"]
    assert main([*command, "--store", str(held_out)]) == 0
    found = json.loads((run / "metrics-fit-people.json").read_text())
    new = found["new_classes"]
    assert (new["classes"], new["shots"], new["pairs"]) == (2, 5, 30)
    assert {"psnr", "interval", "shots_mean_psnr", "copy_content_psnr"} <= set(new)
    assert new["encoder_one_image"] is new["encoder_shots_mean"] is None
    assert "with --store" in fails(capsys, *command)
    assert "was trained on" in fails(capsys, *command, "--store", trained)


def test_evaluate_refuses_unusable_options_and_stores(
    trained_run, encoder_run, glyph_store, tmp_path, capsys
):
    error = fails(capsys, "evaluate", trained_run, "--codes", "encoder")
    assert "train-encoders" in error
    other = packed(tmp_path, {"a": 4, "b": 4}, size=64)
    error = fails(capsys, "evaluate", encoder_run, "--codes", "encoder", "--store", other)
    assert "64 x 64 x 1" in error
    assert "not a packed store" in fails(capsys, "evaluate", encoder_run, "--store", tmp_path)
    error = fails(capsys, "evaluate", encoder_run, "--store", other)
    assert "not the images that" in error
    assert not list(trained_run.glob("metrics-*"))
