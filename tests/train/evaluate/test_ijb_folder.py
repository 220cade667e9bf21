"""A folder of IJB: lists, alignment by landmarks, templates and searches; what is damaged is named."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attfc_train.data.formats.procedural_face import render_face
from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.align import TEMPLATE, aligned, similarity
from attfc_train.evaluate.ijb_folder import embed_templates, read_ijb, searches
from attfc_train.evaluate.scored import Network
from attfc_train.evaluate.templates import pair_scores

SIZE = 112
SHIFT = np.array([30.0, 20.0])


def write_ijb(root: Path, people: int = 6) -> Path:
    """Four pictures a person in two templates of two media each; pictures lie 30 right and 20 down in a larger frame."""
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()
    faces, points = [], []
    for person in range(people):
        for image in range(4):
            frame = np.zeros((180, 200, 3), np.uint8)
            frame[20 : 20 + SIZE, 30 : 30 + SIZE] = render_face(person, image, SIZE)
            name = f"{person}_{image}.png"
            Image.fromarray(frame).save(root / "loose_crop" / name)
            faces.append(f"{name} {10 + 2 * person + image // 2} {image}")
            points.append(" ".join([name, *(f"{value:.3f}" for value in (TEMPLATE + SHIFT).reshape(-1)), "0.9"]))
    templates = range(10, 10 + 2 * people)
    pairs = [f"{one} {other} {int(one // 2 == other // 2)}" for one in templates for other in templates if one < other]
    gallery = ["template,subject", *(f"{10 + 2 * person},{person}" for person in range(people - 2))]
    probe = ["template,subject", *(f"{11 + 2 * person},{person}" for person in range(people))]
    for name, lines in {
        "ijbx_face_tid_mid.txt": faces,
        "ijbx_name_5pts_score.txt": points,
        "ijbx_template_pair_label.txt": pairs,
        "ijbx_1N_gallery_G1.csv": gallery,
        "ijbx_1N_probe_mixed.csv": probe,
    }.items():
        (root / "meta" / name).write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_ijb(tmp_path / "IJBX")


def test_landmarks_on_the_template_give_the_face(folder: Path) -> None:
    read = read_ijb(folder)
    frame = np.array(Image.open(io.BytesIO((folder / "loose_crop" / "0_0.png").read_bytes())))
    crop = aligned(frame, read.landmarks[0], SIZE)
    np.testing.assert_array_equal(crop, render_face(0, 0, SIZE))
    half = aligned(frame, read.landmarks[0], SIZE // 2)
    np.testing.assert_array_equal(half, render_face(0, 0, SIZE)[::2, ::2])


def test_a_turned_and_scaled_face_comes_upright() -> None:
    """Catches a reflection, and x and y exchanged."""
    angle, scale = 0.7, 1.8
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    factor, shift = similarity(TEMPLATE @ turn.T + [40, -7], SIZE)
    assert factor == pytest.approx(np.exp(-1j * angle) / scale)
    assert factor * (40 - 7j) + shift == pytest.approx(0, abs=1e-9)


def test_what_lies_outside_is_black() -> None:
    white = np.full((50, 50, 3), 255, np.uint8)
    crop = aligned(white, TEMPLATE - [60.0, 0.0], SIZE)
    assert crop[10, 61].tolist() == [255] * 3, "column 1 of the picture"
    assert (crop[:, :58] == 0).all()
    assert (crop[55:] == 0).all()
    assert (aligned(white, np.zeros((5, 2)), SIZE)).shape == (SIZE, SIZE, 3), "landmarks that are no face"


@pytest.mark.parametrize("batch_size", [5, 64])
def test_templates_pairs_and_searches(batch_size: int, folder: Path) -> None:
    read = read_ijb(folder)
    sizes: list[int] = []
    templates = embed_templates(Network(nn.Flatten(), SIZE, batch_size, torch.device("cpu")), read, sizes.append)
    assert sum(sizes) == 24
    # A template by hand: two media of one picture each, summed over both views, weighed by the detector's score, normalised.
    pictures = np.stack([render_face(0, image, SIZE) for image in (0, 1)]).astype(np.float64) / 127.5 - 1
    total = 0.9 * (pictures + pictures[:, :, ::-1]).sum(axis=0).transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(templates.vectors[0], total / np.linalg.norm(total), atol=1e-6)
    scores = pair_scores(templates, *read.pairs.T)
    assert scores[read.same].mean() > scores[~read.same].mean()
    (result,) = searches(read, templates).values()
    assert (result.num_mated, result.num_unmated) == (4, 2)
    assert result.rank[10] == 1.0


Damage = Callable[[str], str]


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("ijbx_face_tid_mid.txt", lambda text: text.replace("0_0.png", "other.png"), "must name the same pictures"),
        ("ijbx_face_tid_mid.txt", lambda text: text.replace(" 10 ", " ten "), "must be a list of numbers"),
        ("ijbx_face_tid_mid.txt", lambda _: "", "must be a list of numbers"),
        ("ijbx_name_5pts_score.txt", lambda text: re.sub(r" 0\.9$", "", text, flags=re.MULTILINE), "2, 11 and 3 numbers"),
        ("ijbx_name_5pts_score.txt", lambda text: text.replace("0.9", "nan", 1), "must be a list of numbers"),
        ("ijbx_template_pair_label.txt", lambda text: text + "10 99 0\n", "none of template 99"),
        ("ijbx_template_pair_label.txt", lambda text: re.sub("1$", "0", text, flags=re.MULTILINE), "pairs of one person"),
        ("ijbx_1N_gallery_G1.csv", lambda text: text + "77,5\n", "none of template 77"),
        ("ijbx_1N_gallery_G1.csv", lambda _: "template,subject\n", "but got no lines"),
        ("ijbx_1N_probe_mixed.csv", lambda text: text + "x\n", "must be a list of template,subject"),
    ],
)
def test_damaged_lists(name: str, damage: Damage, expected: str, folder: Path) -> None:
    path = folder / "meta" / name
    path.write_text(damage(path.read_text()))

    def read() -> None:
        lists = read_ijb(folder)
        searches(lists, embed_templates(Network(nn.Flatten(), 16, 8, torch.device("cpu")), lists))

    with pytest.raises(VerificationSetError, match=expected):
        read()


def test_missing_lists_and_pictures(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationSetError, match=r"must hold one \*_face_tid_mid"):
        read_ijb(tmp_path)
    (folder / "loose_crop" / "3_1.png").write_bytes(b"no picture")
    with pytest.raises(VerificationSetError, match=r"3_1\.png' must be a picture"):
        embed_templates(Network(nn.Flatten(), 16, 8, torch.device("cpu")), read_ijb(folder))
    (folder / "loose_crop" / "3_1.png").unlink()
    with pytest.raises(VerificationSetError, match=r"3_1\.png' must be a picture"):
        embed_templates(Network(nn.Flatten(), 16, 8, torch.device("cpu")), read_ijb(folder))
