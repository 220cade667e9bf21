from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from attfc_train.data.decode import DEEP, MAX_SIDE, STRETCHED, begin_like_images, decode
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


def with_scans(size: int, more: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times again."""
    content = saved(FACE.convert("L").resize((size, size)), "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * more + content[-2:]


def test_progressive_jpegs_are_read():
    encoded = saved(FACE, "JPEG", progressive=True)
    assert encoded.count(b"\xff\xda") > 5
    assert np.array_equal(decode(encoded, 96), np.asarray(Image.open(io.BytesIO(encoded))))
    assert decode(with_scans(96, 50), 96).shape == (96, 96, 3)


@pytest.mark.parametrize(("size", "more"), [(16, 5000), (2048, 20)])
def test_thousands_of_scans_are_refused_before_they_are_decoded(size, more):
    encoded = with_scans(size, more)
    before = time.process_time()
    with pytest.raises(DataError, match=r"at most 100 scans.*Save it again as an ordinary JPEG"):
        decode(encoded, 112)
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("other", ["_decoded_by_pillow", "simplejpeg.decode_jpeg_header"])
def test_each_decoder_refuses_thousands_of_scans(monkeypatch, other):
    """Without the other one, which would refuse them too."""

    def fail(*_arguments, **_options):
        raise ValueError("it does not know this JPEG")

    monkeypatch.setattr(f"attfc_train.data.decode.{other}", fail)
    with pytest.raises(DataError, match="at most 100 scans"):
        decode(with_scans(16, 5000), 16)


def gradient(levels: int, dtype: str) -> Image.Image:
    return Image.fromarray(np.linspace(0, levels - 1, 64 * 64).reshape(64, 64).astype(dtype))


def test_deeper_images_are_scaled_not_clipped():
    """Catches Pillow's conversion, in which everything above 255 of 65,535 is white."""
    notes = []
    decoded = decode(saved(gradient(65_536, "uint16"), "PNG"), 64, notes.append)
    exact = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype("uint16") / 257
    assert np.abs(decoded - exact[:, :, None]).max() <= 0.5
    assert notes == [DEEP]
    notes.clear()
    assert decode(deep_colours(), 2, notes.append).tolist() == [[[0, 127, 254], [0, 127, 254]]] * 2
    assert notes == [DEEP]
    notes.clear()
    decode(saved(gradient(256, "uint8"), "PNG"), 64, notes.append)
    assert notes == []


def deep_colours() -> bytes:
    """A PNG of 2 x 2 pixels of three 16-bit channels, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = b"\0" + struct.pack(">3H", 0x0010, 0x7F80, 0xFEFF) * 2
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int64", "bool"])
def test_pixels_of_another_type_are_refused(dtype):
    """Catches 256 that becomes 0 where it is written into a batch."""
    with pytest.raises(DataError, match=f"pixels of type {dtype} instead of uint8"):
        decode(np.zeros((8, 8, 3), dtype), 8)


@pytest.mark.parametrize("encoded", [saved(FACE.resize((64, 48)), "JPEG"), np.zeros((48, 64, 3), np.uint8)])
def test_stretching_is_noted(encoded):
    notes = []
    assert decode(encoded, 32, notes.append).shape == (32, 32, 3)
    assert notes == [STRETCHED]
    notes.clear()
    decode(saved(FACE, "JPEG"), 32, notes.append)
    assert notes == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_beginnings_of_images(kind):
    start = np.frombuffer(saved(FACE, kind)[:4], "<u4")
    assert begin_like_images(start).tolist() == [kind != "GIF"]


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
