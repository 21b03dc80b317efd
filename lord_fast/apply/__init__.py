"""A trained model applied to images, names and files of codes. Each verb has its function here."""

from lord_fast.apply.codes import decode_files, encode_files, fit_files
from lord_fast.apply.pictures import interpolate_files, sample_grid, translate_files

__all__ = [
    "decode_files",
    "encode_files",
    "fit_files",
    "interpolate_files",
    "sample_grid",
    "translate_files",
]
