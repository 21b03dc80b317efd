"""Times a training step of the demo with the fused AdaIN and with the plain one.

    python bench/demo_step.py [float32|bf16]

Both run eagerly on one thread. The precision is by default the one that training chooses on this
machine. They take turns.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from lord_fast import kernels
from lord_fast.config import replace
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore
from lord_fast.machine import set_up
from lord_fast.presets import PRESETS
from lord_fast.train.latent import LatentStage

ROUNDS, STEPS = 30, 5


def main() -> None:
    machine = set_up(precision=sys.argv[1] if sys.argv[1:] else "auto", threads=1)
    kernels.use("auto")
    fuses, times = kernels.fuses_adain, {"fused": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        pack(Glyphs(32), Path(folder, "store"), PackConfig(size=32))
        config = replace(PRESETS["demo"], compile="off")
        stage = LatentStage(config, ImageStore(Path(folder, "store")), machine)
        step = 0
        for turn in range(1 + ROUNDS):
            for name, mine in times.items():
                kernels.fuses_adain = fuses if name == "fused" else lambda *_: False
                start = time.perf_counter()
                for _ in range(STEPS):
                    stage.step(step)
                    step += 1
                if turn:  # the first one warms up
                    mine.append((time.perf_counter() - start) / STEPS * 1e3)
    print(f"{machine.dtype} on one thread, {kernels.live('cpu')}")
    for name, mine in times.items():
        print(
            f"{name}: {statistics.median(mine):.1f} ms a step ({min(mine):.1f} to {max(mine):.1f})"
        )


if __name__ == "__main__":
    main()
