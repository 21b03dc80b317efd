"""Turns encoded images into pixels, with Pillow or DALI."""

from lord_fast.data.decode.contract import (
    MAX_BYTES,
    BadImageError,
    Crop,
    Decoder,
    DecoderName,
    Shape,
    crop_flag,
    read_file,
)
from lord_fast.data.decode.pillow import PillowDecoder, fit_array, is_grey

__all__ = [
    "MAX_BYTES",
    "BadImageError",
    "Crop",
    "Decoder",
    "DecoderName",
    "PillowDecoder",
    "Shape",
    "crop_flag",
    "fit_array",
    "is_grey",
    "open_decoder",
    "read_file",
]


def open_decoder(name: DecoderName, shape: Shape, threads: int, device: str = "cpu") -> Decoder:
    """Open the decoder for a value of --decoder. auto uses DALI if it works, and Pillow otherwise.

    Args:
        name: auto, dali or pillow.
        shape: Size, channels and crop of the decoded images.
        threads: Number of threads that one call may use.
        device: cpu, or cuda to decode on the GPU (only DALI).

    Raises:
        ValueError: dali is requested but does not work. The error quotes DALI's reason.
    """
    if name == "pillow":
        return PillowDecoder(shape, threads)
    from lord_fast.data.decode.dali import DaliDecoder, DaliUnavailableError

    try:
        return DaliDecoder(shape, threads, device)
    except DaliUnavailableError as error:
        if name == "dali":
            raise ValueError(
                f"--decoder dali: {error}; install it with pip install 'lord-fast[dali]', or use "
                f"--decoder pillow"
            ) from error
        return PillowDecoder(shape, threads)
