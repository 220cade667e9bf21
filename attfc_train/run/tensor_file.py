"""Files of ``torch.save``: taken only when every byte is what was written, and only tensors and plain values.

Such a file is a zip archive whose members carry their CRC-32, which torch does not look at when it loads: a bit that flipped on
the disk would be trained on. A file may come from anywhere, too: ``weights_only=True`` reads nothing but an allow-list of types
and runs no code.

The tensors of a file are mapped: its bytes come into memory when they are used, from the disk or from what the system keeps of
it, and go when they were. Writing to such a tensor changes neither the file nor anybody else's view of it. The file may be
replaced meanwhile, but must not be written over in its place.
"""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from attfc_train.errors import CheckpointError
from attfc_train.files import open_file, write_atomically
from attfc_train.run.tensor_map import mapped
from attfc_train.run.tensor_writer import Packed

ANOTHER = "Use another checkpoint or start anew."
_MOST_CHARACTERS = 160


class DamagedFileError(CheckpointError):
    """A file is not what was written: cut short, or with other bits."""


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and dicts of them atomically.

    Raises:
        StorageError: the disk is full or not writable; the former file is intact.
    """
    write_atomically(path, Packed(content).write)


def load_tensors(path: Path, remedy: str = ANOTHER) -> Any:
    """Return the content of a file of `save_tensors` or ``torch.save``, on the CPU, mapped.

    Args:
        remedy: what to do where the file is damaged.

    Raises:
        DamagedFileError: the bytes are not those that were written.
        CheckpointError: the file is missing, or holds something else.
    """
    try:
        with open_file(path) as file, warnings.catch_warnings():  # opened once: the file may be replaced meanwhile
            warnings.simplefilter("ignore")  # torch's notes on damaged pickles, which an error follows
            _check(file)
            return _content(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path}' must exist", "no such file", "Give the folder of a run that has saved.") from error
    except pickle.UnpicklingError as error:
        got = "something else in it, which was not run"
        raise CheckpointError(f"'{path}' must hold tensors and plain values only", got, ANOTHER) from error
    except MemoryError:
        raise
    except Exception as error:  # there is hardly one that zipfile and torch do not raise for damaged bytes
        raise DamagedFileError(f"'{path}' must be a readable checkpoint", short(error), remedy) from error


def _content(file: BinaryIO) -> Any:
    """Return what a file holds, mapped; what cannot be, such as sparse tensors, is read into memory."""
    try:
        return mapped(file)
    except Exception:  # reading tells best what is wrong with the file, if anything is
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def _check(file: BinaryIO) -> None:
    """Read a whole file, and compare every member with its checksum.

    Raises:
        Exception: a difference; damaged bytes lead to nearly all of Python's.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # torch stores its members as they are. Packed ones, or ones that overlap, could hold far more than the file's size.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members) or sum(m.file_size for m in members) > size:
            raise ValueError("members that torch does not write")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"other bits than were written (the checksum of '{damaged}' differs)")


def short(error: Exception) -> str:
    """Return the start of another library's message, or the error's type where it has none."""
    return " ".join(str(error).split())[:_MOST_CHARACTERS] or type(error).__name__
