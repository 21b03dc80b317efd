"""Downloads exported models from the Hugging Face Hub."""

import re
from pathlib import Path

from lord_fast.console import err
from lord_fast.lord.read import CONFIG, TENSORS
from lord_fast.run.folder import CLASS_NAMES

REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*")
"""The form of a name on the Hub, USER/MODEL."""


def locate(model: Path | str) -> Path:
    """Return the folder of a model. A name on the Hub is downloaded if there is no such folder.

    A line on stderr says that the model comes from the Hub.

    Raises:
        ValueError: The Hub has no such model, or the package huggingface_hub is missing.
    """
    path = Path(model)
    name = path.as_posix()
    if path.exists() or REPO.fullmatch(name) is None:
        return path
    folder = download(name)
    err.print(f"{name}: no such folder here, so this is {name} from the Hugging Face Hub")
    return folder


def download(name: str, revision: str | None = None) -> Path:
    """Download a model from the Hub, or take it from the Hub's cache on this machine.

    Args:
        name: USER/MODEL.
        revision: A branch, a tag or a commit. Defaults to the newest.

    Returns:
        The folder of the download.

    Raises:
        ValueError: The Hub has no such model or cannot be reached, or huggingface_hub is missing.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"{name}: no such folder. If it is a model on the Hugging Face Hub, install its client "
            f"first: pip install 'lord-fast[hub]'"
        ) from error
    try:
        files = [CONFIG, TENSORS, CLASS_NAMES]
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except Exception as error:  # The client and its HTTP library raise exceptions of many types.
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{name}: no such folder, and the Hugging Face Hub gives no such model ({reason})"
        ) from error
