"""Trains with 4 virtual ranks in 1, 2 and 4 processes on CUDA and compares the checkpoints.

    python bench/processes.py [FOLDER]

Convolutions are deterministic. Two processes share the first GPU and exchange through host memory.
If the machine has 2 or 4 GPUs, as many processes have one each and exchange with NCCL. The script
prints the sha256 of the last checkpoint and the time of each run, and exits with 1 if they differ.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs

FLAGS = (
    "--virtual-ranks 4 --batch-size 32 --steps 40 --save-every 20 --log-every 20 --loss pyramid "
    "--device cuda --precision float32 --threads 1"
)
TRAIN = """
import sys, torch
torch.use_deterministic_algorithms(True, warn_only=True)
torch.backends.cudnn.benchmark = False
from lord_fast.cli import main
sys.exit(main(sys.argv[1:]))
"""


def train(store: Path, run: Path, script: Path, processes: int, gpus: int) -> str:
    """Train in some processes on some GPUs. Return the sha256 of the last checkpoint."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(processes), "--"]
    environment = {
        **os.environ,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus))),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    words = [*launcher, str(script), "train", str(store), "--run", str(run), *FLAGS.split()]
    subprocess.run(words, check=True, env=environment)
    found = hashlib.sha256()
    for file in sorted((run / "checkpoints" / "latent-000000040").iterdir()):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def main(folder: Path) -> int:
    """Compare the runs."""
    store, script = folder / "store", folder / "train.py"
    pack(Glyphs(32, 8, rotations=(0, 30)), store, PackConfig(size=32))
    script.write_text(TRAIN)
    gpus, hashes = torch.cuda.device_count(), set()
    kinds = [(1, 1, "one process"), (2, 1, "two processes on one GPU, gloo")]
    kinds += [(n, n, f"{n} processes on {n} GPUs, NCCL") for n in (2, 4) if n <= gpus]
    for number, (processes, used, what) in enumerate(kinds):
        start = time.perf_counter()
        digest = train(store, folder / f"run-{number}", script, processes, used)
        print(f"{what}: {digest} ({time.perf_counter() - start:.0f} s)", flush=True)
        hashes.add(digest)
    print("equal bits" if len(hashes) == 1 else "the bits differ")
    return int(len(hashes) > 1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(Path(name)))
