"""lord-fast push."""

from pathlib import Path

from tyro.conf import Positional

from lord_fast.console import err


def push(
    run: Positional[Path],
    name: Positional[str],
    private: bool = False,
    license: str = "unknown",
    onnx: bool = True,
) -> None:
    """Export a run and upload it to the Hugging Face Hub.

    Log in first with hf auth login. This requires the hub extra.

    Examples:
        lord-fast push runs/photos USER/faces --license cc-by-4.0
        lord-fast push model USER/faces --private

    Args:
        run: The run's folder. An exported model is uploaded as it is.
        name: The model's name on the Hub. If it exists there, it gets a new commit.
        private: Make a new model private.
        license: Identifier of the licence for the model card, such as apache-2.0 or cc-by-4.0.
        onnx: Also write the networks as ONNX. This requires the onnx extra.
    """
    from lord_fast.interchange.push import push as push_model

    address = push_model(run, name, private, license, onnx)
    err.print(f"{address}: load it with Lord.from_pretrained({name!r})")
