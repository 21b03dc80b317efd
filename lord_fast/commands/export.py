"""lord-fast export."""

from pathlib import Path

from tyro.conf import Positional

from lord_fast.console import err
from lord_fast.errors import naming


def export(run: Positional[Path], out: Path, onnx: bool = True, license: str = "unknown") -> None:
    """Write a run as safetensors, ONNX and a model card.

    The folder is a model like the run. Every verb that uses a run reads it.

    Examples:
        lord-fast export runs/photos --out model
        lord-fast export runs/photos --out model --no-onnx --license cc-by-4.0

    Args:
        run: The run's folder. Stage 2 is exported if the run has it.
        out: The folder to create.
        onnx: Also write the networks as ONNX and compare them with PyTorch. This requires the onnx
            extra.
        license: Identifier of the licence for the model card, such as apache-2.0 or cc-by-4.0.
    """
    from lord_fast.interchange.export import export as export_run
    from lord_fast.lord import Lord

    with naming(out):
        differences = export_run(Lord(run, device="cpu"), out, onnx, license)
    for file, difference in differences.items():
        err.print(f"{out / file}: differs from PyTorch by at most {difference:.1e}")
    err.print(
        f"{out}: wrote model.safetensors, config.json, README.md. Load it with Lord({str(out)!r})"
    )
