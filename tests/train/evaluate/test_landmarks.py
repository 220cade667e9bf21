from __future__ import annotations

import json
import os

import numpy as np
import pytest

from attfc_train.errors import DataError
from attfc_train.evaluate.align import TEMPLATE
from attfc_train.evaluate.landmarks import Landmarks, chosen_face, strange

FACE = TEMPLATE.astype(np.float32)
NUMBERS = [round(float(value), 3) for value in TEMPLATE.reshape(-1)]
OTHER = [value + 100 for value in NUMBERS]


def written(tmp_path, text, name="points.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Landmarks(path)


@pytest.mark.parametrize("separator", [",", "\t", ";", " ", ", "])
@pytest.mark.parametrize("score", ["", "0.99"])
@pytest.mark.parametrize("headings", [False, True])
def test_lines(tmp_path, separator, score, headings):
    line = separator.join(["a/0.jpg", *map(str, NUMBERS), *([score] if score else [])])
    names = separator.join(["file", *(f"{axis}{i}" for i in range(5) for axis in "xy")])
    table = written(tmp_path, (names + "\n" if headings else "") + line + "\n\n")
    assert table.num_faces == 1
    assert np.allclose(table.of("a/0.jpg"), FACE[None], atol=1e-3)
    assert table.of("a/1.jpg").shape == (0, 5, 2)


def test_names_are_compared_as_paths(tmp_path):
    table = written(
        tmp_path, "\n".join(",".join([name, *map(str, NUMBERS)]) for name in ("./a/0.jpg", "b\\0.jpg", '"c d/0.jpg"'))
    )
    assert [len(table.of(name)) for name in ("a/0.jpg", "b/0.jpg", "c d/0.jpg")] == [1, 1, 1]


def test_several_lines_of_one_image_are_several_faces(tmp_path):
    lines = [",".join([name, *map(str, row)]) for name, row in (("a", NUMBERS), ("b", NUMBERS), ("a", OTHER))]
    table = written(tmp_path, "\n".join(lines))
    assert np.allclose(table.of("a"), [FACE, FACE + 100], atol=1e-3)
    assert (table.num_faces, table.num_unused) == (3, 1)


@pytest.mark.parametrize(
    "value",
    [NUMBERS, [NUMBERS], TEMPLATE.tolist(), [TEMPLATE.tolist()]],
    ids=["numbers", "list of numbers", "pairs", "list of pairs"],
)
def test_json(tmp_path, value):
    table = written(tmp_path, json.dumps({"a": value, "nobody": []}), "points.json")
    assert np.allclose(table.of("a"), FACE[None], atol=1e-3)
    assert table.num_faces == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", ""),
        ("p.csv", "name,x,y\na/0.jpg,1,2\n"),
        ("p.csv", ",".join(["a", *map(str, NUMBERS)]) + "\na/1.jpg,1,2,3\n"),
        ("p.csv", ",".join(["a", *map(str, NUMBERS)]) + "\n" + ",".join(["b", *["x"] * 10])),
        ("p.json", "[1, 2]"),
        ("p.json", "{"),
        ("p.json", '{"a": [1, 2, 3]}'),
        ("p.json", '{"a": "text"}'),
        ("p.json", "{}"),
        ("p.json", "[" * 100_000),
    ],
)
def test_other_content_is_refused_with_the_format(tmp_path, name, text):
    with pytest.raises(DataError, match="must hold name,x1,y1"):
        written(tmp_path, text, name)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(DataError):
        Landmarks(tmp_path / "missing.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="regular file"):
        Landmarks(tmp_path / "pipe.csv")


def test_the_large_face_near_the_middle_is_meant():
    """A larger face at the edge loses: 60 x 60 at 100 pixels from the middle, and 50 x 50 in the middle."""
    boxes = np.array([[0, 75, 60, 135], [75, 75, 125, 125]], dtype=np.float32)
    assert chosen_face(boxes, 200, 200) == 1
    assert chosen_face(boxes[:1], 200, 200) == 0
    assert chosen_face(np.array([[90, 90, 110, 110], [60, 60, 140, 140]], dtype=np.float32), 200, 200) == 1


def test_landmarks_of_no_face():
    assert strange(FACE) == ""
    assert strange(FACE @ np.array([[0, 1], [-1, 0]], np.float32)) == "", "a tilted head"
    assert "finite" in strange(np.full((5, 2), np.nan, np.float32))
    assert "one place" in strange(np.zeros((5, 2), np.float32))
    assert "order" in strange(FACE[[1, 0, 2, 4, 3]])
    assert "order" in strange(FACE * np.array([-1, 1], np.float32)), "mirrored"
