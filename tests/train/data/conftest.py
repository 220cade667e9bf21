"""Small data sets for the tests of this folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attfc_train.data.formats.procedural_face import render_face


def encoded_face(identity: int, image: int, size: int = 48, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(render_face(identity, image, size)).save(file, kind, quality=95)
    return file.getvalue()


@pytest.fixture(scope="session")
def face_file() -> Callable[..., bytes]:
    """``face_file(identity, image, size=48, kind="JPEG")``: the bytes of an image file."""
    return encoded_face


@pytest.fixture
def face_folder(tmp_path: Path) -> Path:
    """Folders b, a, c with 3, 1 and 4 images."""
    root = tmp_path / "faces"
    for identity, (name, count) in enumerate([("b", 3), ("a", 1), ("c", 4)]):
        (root / name).mkdir(parents=True)
        for image in range(count):
            (root / name / f"{image}.jpg").write_bytes(encoded_face(identity, image))
    return root


class Repeated:
    """A data set of plain colours: image p is filled with p, except those in `broken`, which cannot be decoded."""

    def __init__(self, labels, broken=()) -> None:
        from attfc_train.data.identity_index import IdentityIndex

        self.index = IdentityIndex.from_labels(labels)
        self.broken = set(broken)
        self.name = "colours"

    def encoded(self, position):
        return b"no image" if position in self.broken else np.full((8, 8, 3), position % 256, dtype=np.uint8)

    def locate(self, position):
        return f"colour {position}"


@pytest.fixture(scope="session")
def colours():
    """``colours(labels, broken=())``: a data set whose pixels tell the position."""
    return Repeated
