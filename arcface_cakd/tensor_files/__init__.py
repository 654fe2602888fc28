"""Files of tensors, torch's: written with a digest, and held against it before they are read."""

from arcface_cakd.tensor_files.reading import load_tensors
from arcface_cakd.tensor_files.seal import DamagedFile, write_tensors

__all__ = ["DamagedFile", "load_tensors", "write_tensors"]
