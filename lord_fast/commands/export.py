"""lord-fast export."""

from pathlib import Path

from rich.console import Console

from lord_fast.interchange.export import export
from lord_fast.lord import Lord


def run(run_path: Path, out: Path, onnx: bool) -> None:
    """Write the folder and say how far ONNX is from PyTorch."""
    differences = export(Lord.load(run_path, device="cpu"), run_path, out, onnx)
    console = Console(stderr=True, soft_wrap=True)
    for file, difference in differences.items():
        console.print(f"{out / file}: within {difference:.1e} of PyTorch", highlight=False)
    console.print(f"{out}: model.safetensors, config.json, README.md")
