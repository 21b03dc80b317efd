"""Tests that a kill at any system call of a save does not change the final result."""

import json
import os
import subprocess
import sys

import pytest

from tests.test_train import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_call_of_a_save_changes_nothing_in_the_end(glyph_store, tmp_path):
    """This tests about 30 system calls. `LORD_FAST_CRASH_POINTS=1000` tests all of them."""
    points = os.environ.get("LORD_FAST_CRASH_POINTS", "30")
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash_points", glyph_store, tmp_path, points],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["points"] >= 30
    assert found["wrong"] == {}
