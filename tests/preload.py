"""What the processes of `tests.processes` share. No thread may start here."""

import lord_fast.cli
import lord_fast.train.start  # noqa: F401
