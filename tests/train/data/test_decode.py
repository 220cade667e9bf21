from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attfc_train.data.decode import MAX_SIDE, decode
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.errors import DataError


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


FACE = Image.fromarray(render_face(3, 1, 96))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_pixels_equal_pillows(kind):
    encoded = saved(FACE, kind)
    assert np.array_equal(decode(encoded, 96), np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))


@pytest.mark.parametrize("size", [32, 64, 112, 200])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_resizing_agrees_with_pillow(size, kind):
    encoded = saved(FACE, kind)
    expected = Image.open(io.BytesIO(encoded)).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    assert np.abs(decode(encoded, size).astype(int) - np.asarray(expected).astype(int)).max() <= 2


def test_a_scaled_decode_is_only_taken_where_it_is_exact():
    encoded = saved(FACE, "JPEG", quality=95)
    half = simplejpeg.decode_jpeg(encoded, min_height=48, min_width=48)
    assert half.shape == (48, 48, 3)
    assert np.array_equal(decode(encoded, 48), half)
    assert np.abs(half.astype(int) - np.asarray(FACE.resize((48, 48), Image.Resampling.BOX)).astype(int)).mean() < 3


def test_pixels_pass_through_and_are_resized():
    pixels = np.asarray(FACE)
    assert decode(pixels, 96) is pixels
    assert (
        np.abs(decode(pixels, 48).astype(int) - np.asarray(FACE.resize((48, 48), Image.Resampling.BICUBIC)).astype(int)).max()
        <= 2
    )


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_colour_spaces(mode):
    encoded = saved(FACE.convert(mode), "JPEG", quality=95)
    decoded = decode(encoded, 96).astype(int)
    assert np.abs(decoded - np.asarray(FACE.convert(mode).convert("RGB")).astype(int)).mean() < 5


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_pngs_of_other_modes(mode):
    assert decode(saved(FACE.convert(mode), "PNG"), 96).shape == (96, 96, 3)


def test_palettes_with_transparency():
    assert decode(saved(FACE.convert("P"), "PNG", transparency=bytes(range(200))), 96).shape == (96, 96, 3)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("sides", [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (60_000, 60_000), (10_000, 10_000)])
def test_bombs_are_refused(sides):
    with pytest.raises(DataError):
        decode(png_claiming(*sides), 112)
    jpeg = bytearray(saved(FACE, "JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", *sides)
    with pytest.raises(DataError, match="at most 4096 pixels"):
        decode(bytes(jpeg), 112)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8", b"no image", b"GIF89a" + bytes(50), saved(FACE, "GIF"), saved(FACE, "JPEG")[:700]]
)
def test_what_is_no_image(content):
    with pytest.raises(DataError, match="readable JPEG, PNG, WebP or BMP") as caught:
        decode(content, 32)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_pixels_of_the_wrong_shape(shape):
    with pytest.raises(DataError, match="pixels of shape"):
        decode(np.zeros(shape, np.uint8), 32)


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]), st.data())
def test_damaged_files_give_an_image_or_a_data_error(kind, data):
    content = bytearray(saved(FACE.resize((20, 20)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(DataError):
        assert decode(bytes(content[:end]), 16).shape == (16, 16, 3)
