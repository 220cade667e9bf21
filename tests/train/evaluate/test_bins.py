"""Verification files: every known variant is read, nothing in them is ever run, damage is one line."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.bins import read_bin, write_bin
from attfc_train.evaluate.restricted_pickle import load_plain
from attfc_train.evaluate.verification_set import VerificationSet

P = 12
SAME = np.arange(P) % 2 == 0


def jpeg(value: int, size: int = 16) -> bytes:
    pixels = np.full((size, size, 3), value, dtype=np.uint8)
    pixels[: size // 2, : size // 2, 0] = 255 - value  # not symmetric
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


IMAGES = [jpeg(10 * i) for i in range(2 * P)]


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def rows(verification_set: VerificationSet) -> list[bytes]:
    return [verification_set.encoded[position] for position in verification_set.pairs.reshape(-1)]


def refusal(path: Path) -> str:
    with pytest.raises(VerificationSetError) as caught:
        read_bin(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_bin(tmp_path / "lfw.bin", IMAGES, SAME)
    read = read_bin(tmp_path / "lfw.bin")
    assert (read.name, read.num_pairs) == ("lfw", P)
    assert rows(read) == IMAGES
    assert read.same.tolist() == SAME.tolist()
    images, same = pickle.loads((tmp_path / "lfw.bin").read_bytes())
    assert (images, same) == (IMAGES, SAME.tolist())


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["bytes", "bytearray", "column", "vector"])
def test_every_protocol_and_element_type(tmp_path: Path, protocol: int, kind: str) -> None:
    convert = {
        "bytes": bytes,
        "bytearray": bytearray,
        "column": lambda image: np.frombuffer(image, np.uint8).copy()[:, None],
        "vector": lambda image: np.frombuffer(image, np.uint8).copy(),
    }[kind]
    document = ([convert(image) for image in IMAGES], SAME.tolist())
    read = read_bin(saved(tmp_path / "a.bin", pickle.dumps(document, protocol=protocol)))
    assert rows(read) == IMAGES
    assert read.same.tolist() == SAME.tolist()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("labels", [SAME, list(SAME), [int(value) for value in SAME], tuple(SAME.tolist())])
def test_labels_of_many_kinds(tmp_path: Path, protocol: int, labels: object) -> None:
    read = read_bin(saved(tmp_path / "a.bin", pickle.dumps([IMAGES, labels], protocol=protocol)))
    assert read.same.tolist() == SAME.tolist()
    assert read.same.dtype == np.bool_


INTEGERS = ["b1", "i1", "u1", "i2", "<u2", ">i4", "u4", ">i8", "<u8"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", INTEGERS)
def test_labels_of_any_numpy_integer(tmp_path: Path, protocol: int, kind: str) -> None:
    """As an array, as a list of scalars, and as an array of objects; catches the other order of bytes: 256 for 1."""
    labels = SAME.astype(kind)
    for same in (labels, labels[:, None], list(labels), np.array(list(labels), dtype=object)):
        read = read_bin(saved(tmp_path / "a.bin", pickle.dumps((IMAGES, same), protocol=protocol)))
        assert read.same.tolist() == SAME.tolist()


@pytest.mark.parametrize("protocol", range(6))
def test_images_in_an_array_of_objects(tmp_path: Path, protocol: int) -> None:
    arrays = np.empty(2 * P, dtype=object)
    arrays[:] = [np.frombuffer(image, np.uint8).copy() for image in IMAGES]
    for images in (arrays, np.array(IMAGES, dtype=object)):
        read = read_bin(saved(tmp_path / "a.bin", pickle.dumps((images, SAME), protocol=protocol)))
        assert rows(read) == IMAGES


def test_numpy_1_module_names(tmp_path: Path) -> None:
    arrays = [np.frombuffer(image, np.uint8).copy() for image in IMAGES]
    content = pickle.dumps((arrays, SAME.tolist()), protocol=2).replace(b"numpy._core.", b"numpy.core.")
    assert rows(read_bin(saved(tmp_path / "a.bin", content))) == IMAGES


def test_python_2_strings(tmp_path: Path) -> None:
    images = b"(l" + b"".join(b"T" + len(image).to_bytes(4, "little") + image + b"a" for image in IMAGES)
    labels = b"(l" + b"".join((b"I01\n" if same else b"I00\n") + b"a" for same in SAME)
    read = read_bin(saved(tmp_path / "a.bin", b"(" + images + labels + b"t."))
    assert rows(read) == IMAGES
    assert read.same.tolist() == SAME.tolist()


def test_python_2_arrays(tmp_path: Path) -> None:
    # protocol 2 as CPython 2.7 with NumPy 1 writes it: dtype name and raw data are byte strings
    def array(image: bytes) -> bytes:
        head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        shape = b"J" + len(image).to_bytes(4, "little") + b"K\x01\x86"
        dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return head + shape + dtype + b"\x89T" + len(image).to_bytes(4, "little") + image + b"tb"

    content = b"\x80\x02](" + b"".join(map(array, IMAGES)) + b"e](" + b"\x88\x89" * (P // 2) + b"e\x86."
    assert rows(read_bin(saved(tmp_path / "a.bin", content))) == IMAGES


class Evil:
    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("call", "arguments"),
    [(os.system, ("touch {0}",)), (builtins.eval, ("open('{0}', 'w')",)), (getattr, (os, "x")), (np.frombuffer, (b"x",))],
)
def test_calls_are_refused_unrun(tmp_path: Path, protocol: int, call: object, arguments: tuple[object, ...]) -> None:
    trace = tmp_path / "trace"
    arguments = tuple(a.format(trace) if isinstance(a, str) else "x" if a is os else a for a in arguments)
    content = pickle.dumps((IMAGES, [Evil(call, *arguments)]), protocol=protocol)
    assert "it names" in refusal(saved(tmp_path / "a.bin", content))
    assert not trace.exists()


HUGE = (10**12).to_bytes(8, "little")
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EMPTY_ARRAY = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"(Nios\nsystem\n.", "opcode INST"),
        (b"(cos\nsystem\nNo.", "opcode OBJ"),
        (b"cos\nsystem\n)\x81.", "opcode NEWOBJ"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"Pid\n.", "opcode PERSID"),
        (b"}.", "opcode EMPTY_DICT"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"cnumpy.core.multiarray\nscalar.__globals__\n.", "it names"),
        (b"cnumpy\nndarray\n(K\x05tR.", "it builds an array directly"),
        (b"cbuiltins\nbytearray\n\x8a\x06" + HUGE[:6] + b"\x85R.", "bytes of something else"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.", "unknown way"),
        (b"c_codecs\nencode\nNb.", "changes a function"),
        (b"cnumpy\ndtype\nC\x02f8\x85R.", "something else than bytes"),
        (b"cnumpy\ndtype\n]\x85R.", "something else than bytes"),
        (EMPTY_ARRAY + b"(K\x01K\x05\x85cnumpy\ndtype\nC\x02u1\x85R\x89C\x01atb.", "odd shape"),
        (EMPTY_ARRAY + b"(K\x01K\x01\x85cnumpy\ndtype\nC\x02u1\x85R\x89C\x02abtb.", "2 bytes"),
        (EMPTY_ARRAY + b"Nb.", "odd state"),
        (b"]r\xff\xff\xff\xf0.", "odd memo"),
        (b"\x8e" + HUGE + b"ab.", "damaged"),
        (b"", "damaged"),
        (b"\xff\xd8\xff\xe0 a photograph", "damaged"),
        (b"PK\x03\x04 an archive", "a zip archive"),
        (b"N.", "pair of lists"),
        (b"]]\x86.]]\x86.", "4 bytes follow its end"),
        (b"]]\x86." + bytes(512), "512 bytes follow its end"),
        (b"]]\x86.", "0 pairs"),
    ],
)
def test_hand_made_attacks_and_other_files(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refusal(saved(tmp_path / "a.bin", content))


def test_text_cannot_multiply(tmp_path: Path) -> None:
    once = b"c_codecs\nencode\nq\x00X\x00\x10\x00\x00" + b"a" * 4096 + b"q\x01X\x06\x00\x00\x00latin1q\x02\x87R"
    again = b"h\x00h\x01h\x02\x86R"
    content = b"\x80\x02](" + once.replace(b"\x87R", b"\x86R") + again * 1000 + b"e."
    assert "without end" in refusal(saved(tmp_path / "a.bin", content))


@pytest.mark.parametrize("step", [b"N0", b"cnumpy\nndarray\n0", b"]0", b"(0"])
def test_opcodes_without_data_are_limited(tmp_path: Path, step: bytes) -> None:
    """A million steps of nothing took as long as it liked."""
    before = time.process_time()
    assert re.search("opcodes in|names more than", refusal(saved(tmp_path / "a.bin", b"\x80\x02" + step * 10**6 + b"N.")))
    assert time.process_time() - before < 2


def test_the_largest_files_of_arrays_are_within_the_limit(tmp_path: Path) -> None:
    """12,000 arrays of 300 bytes, in the protocol that takes most opcodes."""
    images = [np.full(300, 1, np.uint8) for _ in range(12_000)]
    content = pickle.dumps((images, [True] * 6000), protocol=2)
    assert read_bin(saved(tmp_path / "a.bin", content)).num_pairs == 6000


def test_memory_that_is_shared_is_not_multiplied(tmp_path: Path) -> None:
    """24 arrays over one bytearray of a megabyte: catches a copy for each."""
    memory = b"\x96" + (10**6).to_bytes(8, "little") + bytes(10**6) + b"\x94"
    dtype = b"cnumpy\ndtype\nC\x02u1\x85R\x94"
    array = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01J@B\x0f\x00\x85h\x01\x89h\x00tb"
    content = b"\x80\x05" + memory + b"0" + dtype + b"0](" + array * 24 + b"e](" + b"\x88\x89" * 6 + b"e\x86."
    images, _ = load_plain(content)  # type: ignore[misc]
    assert len({id(image.data) for image in images}) == 1
    read = read_bin(saved(tmp_path / "a.bin", content))
    assert [len(image) for image in read.encoded] == [10**6]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ((IMAGES[:-1], SAME.tolist()), "23 images for 12 pairs"),
        ((IMAGES[:18], SAME.tolist()[:9]), "9 pairs, of 10"),
        ((IMAGES, ["yes"] * P), "neither true nor false"),
        ((IMAGES, [1.0] * P), "neither true nor false, 1 nor 0: 1.0"),
        ((IMAGES, np.full(P, -1)), "neither true nor false, 1 nor 0: -1"),
        ((IMAGES, [np.int16(-1)] * P), "neither true nor false, 1 nor 0: -1"),
        ((IMAGES, SAME.astype("f4")), "something else than bytes, integers and booleans: 'f4'"),
        ((np.zeros((2 * P, 8, 8, 3), np.uint8), SAME), "its images are one array of u1 instead of encoded files"),
        (([np.zeros(9, np.int32)] * 2 * P, SAME), "an image in it is an array of <i4 instead of bytes"),
        ((IMAGES, [2] * P), "neither true nor false"),
        ((["a"] * 2 * P, SAME.tolist()), "str instead of bytes"),
        (([None] * 2 * P, SAME.tolist()), "NoneType instead of bytes"),
        (IMAGES, "pair of lists"),
        ((IMAGES, SAME.tolist(), 1), "pair of lists"),
    ],
)
def test_wrong_content(tmp_path: Path, document: object, reason: str) -> None:
    assert reason in refusal(saved(tmp_path / "a.bin", pickle.dumps(document)))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert "must be a file" in refusal(tmp_path / "none.bin")
    assert "must be a file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.bin")
    assert "must be a file" in refusal(tmp_path / "pipe.bin")


def test_a_pointer_is_named(tmp_path: Path) -> None:
    assert "git lfs pull" in refusal(saved(tmp_path / "a.bin", b"version https://git-lfs.github.com/spec/v1\n"))


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attfc_train.evaluate.bins.MAX_FILE_BYTES", 100)
    assert "not be larger than 100 B" in refusal(saved(tmp_path / "a.bin", b"a" * 101))


def test_undecodable_images_are_named(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", [*IMAGES[:-1], b"no image"], SAME)
    with pytest.raises(VerificationSetError, match="in pair 11") as caught:
        read_bin(tmp_path / "a.bin").images(16)
    assert "\n" not in str(caught.value)


GOOD = pickle.dumps(([np.frombuffer(b"%02d" % i, np.uint8) for i in range(2 * P)], SAME.tolist()), protocol=4)
OLD = pickle.dumps(([b"%02d" % i for i in range(2 * P)], SAME.tolist()), protocol=2)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([GOOD, OLD]), st.integers(0, 400), st.binary(max_size=4), st.booleans())
@example(GOOD, 0, b"", True)
def test_damage_is_an_error_or_another_set_but_never_a_crash(
    tmp_path: Path, good: bytes, place: int, damage: bytes, cut: bool
) -> None:
    content = good[:place] + damage + (b"" if cut else good[place + len(damage) :])
    message = ""
    try:
        assert read_bin(saved(tmp_path / "a.bin", content)).num_pairs >= 10
    except VerificationSetError as error:
        message = str(error)
    assert "\n" not in message


def test_lfw_fold_8(faces: Path) -> None:
    read = read_bin(faces / "lfw_fold8.bin")
    images, same = pickle.loads((faces / "lfw_fold8.bin").read_bytes())  # a file of our own
    assert rows(read) == [bytes(image) for image in images]
    assert read.same.tolist() == same
    assert len(read.encoded) < 1200
    assert read.images(64).shape == (len(read.encoded), 3, 64, 64)
