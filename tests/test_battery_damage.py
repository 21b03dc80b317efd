"""Damage to any file that is read back: refused, or it changes nothing."""

import random
import shutil

import pytest

from tests.soak.damage import attack, is_wrong, targets


@pytest.mark.filterwarnings("ignore")
def test_damage_is_refused_or_harmless(encoder_run, tmp_path):
    """A few of each file here; `python -m tests.soak.damage` does thousands."""
    run = shutil.copytree(encoder_run, tmp_path / "run")
    done, wrong = 0, {}
    for file, read in targets(run, tmp_path):
        if file.is_file():
            found = attack(file, read, 4, random.Random(f"0 {file.name}"))
            done += sum(found.values())
            if is_wrong(found):
                wrong[file] = found
    assert wrong == {}
    assert done >= 160
