"""Times a training step of the demo with the fused AdaIN and with the plain one.

    python bench/demo_step.py [float32|bf16]

Both run eagerly on one thread. The precision is by default the one that training chooses on this
machine. They take turns.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from lord_fast import kernels
from lord_fast.bench.measure import Case, measure, rows_of, table
from lord_fast.config import replace
from lord_fast.console import out
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore
from lord_fast.machine import set_up
from lord_fast.presets import PRESETS
from lord_fast.train.latent import LatentStage

ROUNDS = 30


def main() -> None:
    machine = set_up(precision=sys.argv[1] if sys.argv[1:] else "auto", threads=1)
    kernels.use("auto")
    forms = {"plain": lambda *_: False, "fused": kernels.fuses_adain}
    with tempfile.TemporaryDirectory() as folder:
        pack(Glyphs(32), Path(folder, "store"), PackConfig(size=32))
        config = replace(PRESETS["demo"], compile="off")
        stage = LatentStage(config, ImageStore(Path(folder, "store")), machine)
        steps = count()

        def prepare(fuses: Callable[..., bool]) -> Callable[[], object]:
            kernels.fuses_adain = fuses
            return lambda: stage.step(next(steps))

        group = f"step of the demo, {machine.dtype}, one thread, {kernels.live('cpu')}"
        params = {"B": stage.batch_size}
        cases = [Case(group, name, params, partial(prepare, form)) for name, form in forms.items()]
        out.print(table(rows_of(cases, measure(cases, ROUNDS, machine.device))))


if __name__ == "__main__":
    main()
