"""A killed or failed verb, and the same command again: the bytes of an undisturbed one."""

import json
import os
import subprocess
import sys

import pytest

from tests.test_train import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_verbs_that_are_killed_or_fail_at_random_end_with_the_same_bytes():
    """Two attacks on each verb here; `python -m tests.soak.kills` does hundreds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.kills", "--count", "1", "--ways", "kill,eio"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == {}
    assert len(found["found"]) == 5
