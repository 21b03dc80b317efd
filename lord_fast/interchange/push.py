"""Uploads an exported model to the Hugging Face Hub."""

import tempfile
from pathlib import Path

from lord_fast.interchange.export import UNKNOWN, export
from lord_fast.lord import Lord
from lord_fast.lord.hub import REPO
from lord_fast.lord.read import CONFIG, TENSORS


def push(
    model: Path, name: str, private: bool = False, licence: str = UNKNOWN, onnx: bool = True
) -> str:
    """Export a run and upload it, or upload a folder of `lord-fast export` as it is.

    The login is that of the Hub's client: `hf auth login`, or the variable HF_TOKEN. HF_ENDPOINT
    names another server.

    Args:
        model: A run's folder, or an exported folder.
        name: USER/MODEL. It is created if it does not exist. An existing one gets a new commit.
        private: Whether a new one is private.
        licence: Identifier of the licence for the card, such as apache-2.0.
        onnx: Whether to export the networks as ONNX too.

    Returns:
        The address of the model.

    Raises:
        ValueError: `name` is no name on the Hub, the Hub refuses, the hub extra is missing, or the
            run cannot be exported.
    """
    if REPO.fullmatch(name) is None:
        raise ValueError(f"{name}: not the form of a name on the Hub, which is USER/MODEL")
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            "the client of the Hugging Face Hub is missing; pip install 'lord-fast[hub]'"
        ) from error
    with tempfile.TemporaryDirectory() as temporary:
        folder = model
        if not (model / CONFIG).is_file() or not (model / TENSORS).is_file():
            folder = Path(temporary, "model")
            export(Lord(model, device="cpu"), folder, onnx, licence, name)
        try:
            api = huggingface_hub.HfApi()
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=name, folder_path=folder, commit_message="Upload with lord-fast"
            )
        except Exception as error:  # The client and its HTTP library raise errors of many types.
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{name}: the Hugging Face Hub does not take it ({reason}); log in with: hf auth "
                f"login"
            ) from error
    return str(address)
