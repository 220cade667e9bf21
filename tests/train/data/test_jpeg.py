from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from attfc_train.data.decode import decode
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.jpeg import BLOCK, PlaneDecoder, plain_size

FACE = Image.fromarray(render_face(3, 1, 64))


def saved(image: Image.Image = FACE, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PLAIN = {
    "plain": saved(quality=95),
    "half as many colours across": saved(subsampling=1),
    "in all directions": saved(subsampling=2),
    "all colours": saved(subsampling=0),
    "own tables": saved(optimize=True),
    "grey": saved(FACE.convert("L")),
    "with a comment": saved(comment=b"\xff\xc0 is no frame here"),
    "with a preview": saved(exif=b"Exif\0\0" + saved(FACE.resize((16, 16)))),
}


@pytest.mark.parametrize("name", PLAIN)
def test_planes_equal_what_is_decoded_otherwise(name):
    """Catches another order of colours, another rounding, and the size of a preview."""
    assert plain_size(PLAIN[name]) == (64, 64)
    decoder = PlaneDecoder(64)
    out = np.zeros((5, 3, 64, 64), np.uint8)
    assert decoder.decode(PLAIN["plain"], 0)
    assert decoder.decode(PLAIN[name], 1)
    decoder.move(out, [4, 2])
    for row, encoded in ((4, PLAIN["plain"]), (2, PLAIN[name])):
        assert np.array_equal(out[row], decode(encoded, 64).transpose(2, 0, 1))
    assert not out[[0, 1, 3]].any()


def test_a_full_block():
    faces = [saved(Image.fromarray(render_face(identity, 0, 32))) for identity in range(BLOCK)]
    decoder = PlaneDecoder(32)
    out = np.zeros((BLOCK, 3, 32, 32), np.uint8)
    assert all(decoder.decode(face, place) for place, face in enumerate(faces))
    decoder.move(out, list(range(BLOCK))[::-1])
    assert all(np.array_equal(out[-1 - place], decode(face, 32).transpose(2, 0, 1)) for place, face in enumerate(faces))


OTHERS = {
    "progressive": saved(progressive=True),
    "four colours": saved(FACE.convert("CMYK")),
    "PNG": saved(kind="PNG"),
    "nothing": b"",
    "the first bytes": b"\xff\xd8\xff",
    "cut off": saved()[:400],
    "no JPEG": b"\xff\xd8 no image",
}


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_is_left_alone(name):
    assert not PlaneDecoder(64).decode(OTHERS[name], 0)


def test_other_sizes_are_left_alone():
    assert plain_size(saved(FACE.resize((64, 48)))) == (48, 64)
    assert not PlaneDecoder(64).decode(saved(FACE.resize((64, 48))), 0)
    assert not PlaneDecoder(32).decode(saved(), 0)


def test_more_scans_than_one_are_never_plain():
    """Catches the bound on a decoder's time that is gone: a scan behind a scan of fewer colours is read too."""
    encoded = bytearray(saved())
    scan = encoded.index(b"\xff\xda")
    assert plain_size(bytes(encoded)) == (64, 64)
    encoded[scan + 4] = 1
    assert plain_size(bytes(encoded)) is None


@pytest.mark.parametrize("end", range(0, 700, 7))
def test_a_file_that_ends_anywhere_is_an_answer(end):
    assert plain_size(saved()[:end]) in (None, (64, 64))
