"""``attfc-train data split`` where images are equal, identities are merged, and sets are put together: nothing leaks."""

from __future__ import annotations

import functools
import pickle
import re
import sys

import numpy as np
import pytest

from attfc_train import cli
from attfc_train.data.formats.recordio_writer import write_headerless
from attfc_train.data.source import open_dataset
from attfc_train.sources import joined_spec
from tests.cli import conftest

IDS, EACH = 30, 5
face = functools.cache(conftest.face)


@pytest.fixture
def split(monkeypatch, capsys, tmp_path):
    """``split(spec, "--ids", 10)``: what is shown, the training set and the verification images, in pairs."""

    def call(spec, *arguments, code=0, output="train.subset"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "400")
        options = ["-o", output, "--val", "val.bin", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["attfc-train", "data", "split", str(spec), *options])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), shown + errors
        if code:
            return errors
        images, same = pickle.loads((tmp_path / "val.bin").read_bytes(), encoding="bytes")
        return (
            " ".join(shown.split()),
            open_dataset(str(tmp_path / output)),
            list(zip(zip(images[::2], images[1::2], strict=True), same, strict=True)),
        )

    return call


def contents(dataset):
    """The images of each person by label, in the order of the files."""
    people: dict[int, list[bytes]] = {}
    for place in range(dataset.index.num_images):
        people.setdefault(int(dataset.index.labels[place]), []).append(dataset.encoded(place))
    return people


def sharing(people):
    """The people who have an image that another has, by comparing everybody with everybody."""
    return {one for one, images in people.items() for two, others in people.items() if one != two and set(images) & set(others)}


def written(folder, people):
    """A record file of lists of images, people in turns."""
    rows = [(label, image) for label, images in people.items() for image in images]
    order = np.random.default_rng(1).permutation(len(rows)).tolist()
    write_headerless(folder / "train.rec", [rows[place][0] for place in order], [rows[place][1] for place in order])
    return folder


def faces(first=0, num=IDS):
    return {label: [face(first + label, image) for image in range(EACH)] for label in range(num)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("output", ["train.subset", "copy/train.rec"])
def test_equal_images_are_on_one_side(seed, output, split, tmp_path):
    """Catches a person who is held out although an image of his stands under another label, which is trained on.

    Without the comparison these seeds hold such people out.
    """
    rng = np.random.default_rng(seed)
    people = faces()
    for _ in range(5):
        giver, taker = rng.choice(IDS, 2, replace=False).tolist()
        people[taker].append(people[giver][int(rng.integers(EACH))])
        twice = int(rng.integers(IDS))
        people[twice].append(people[twice][0])
    together = sharing(people)
    assert 5 <= len(together) <= 10
    shown, train, pairs = split(written(tmp_path / "in", people), "--ids", 15, "--pairs", 60, "--seed", seed, output=output)
    assert re.search(rf"kept together {len(together)} identities that share images: \d+ with the very bytes of another", shown)
    assert "all of them stay for training" in shown
    assert f"held out 15 of {IDS} identities" in shown
    trained = [image for images in contents(train).values() for image in images]
    assert len(contents(train)) == IDS - 15
    assert not {image for pair, _ in pairs for image in pair} & set(trained)
    assert {image for person in together for image in people[person]} <= set(trained)
    assert all(first != second for (first, second), _ in pairs), "no image is compared with itself"
    owner = {image: label for label, images in people.items() for image in images}
    assert [owner[first] == owner[second] for (first, second), _ in pairs] == [same for _, same in pairs]


def test_without_equal_images_nothing_is_said_and_the_same_people_are_held_out(split, tmp_path):
    shown, train, _ = split(written(tmp_path / "in", faces()), "--ids", 12, "--pairs", 40)
    assert "kept together" not in shown
    gone = np.sort(np.random.default_rng(0).permutation(IDS)[:12])
    assert train.index.original_labels.tolist() == np.setdiff1d(np.arange(IDS), gone).tolist()


def test_equal_damage_keeps_nobody_together(split, tmp_path):
    people = {label: [*images, b"no image"] for label, images in faces().items()}
    shown, _, pairs = split(written(tmp_path / "in", people), "--ids", 20, "--pairs", 60)
    assert "kept together" not in shown
    assert b"no image" not in {image for pair, _ in pairs for image in pair}


@pytest.mark.parametrize("seed", range(2))
def test_people_of_two_sets_stay_together(seed, split, tmp_path):
    """Ten people of the second set are people of the first, by one image each; as a list of sets nobody says so."""
    first = faces()
    second = faces(first=100, num=15)
    for label in range(10):
        second[label][0] = first[label][2]
    spec = joined_spec([str(written(tmp_path / "a", first)), str(written(tmp_path / "b", second))])
    shown, train, pairs = split(spec, "--ids", 15, "--pairs", 60, "--seed", seed)
    assert "kept together 20 identities that share images: 10 with the very bytes of another identity's" in shown
    trained = {image for images in contents(train).values() for image in images}
    assert not {image for pair, _ in pairs for image in pair} & trained
    shared = {image for label in range(10) for image in first[label] + second[label]}
    assert shared <= trained


@pytest.mark.parametrize("output", ["train.subset", "copy/train.rec"])
@pytest.mark.parametrize("seed", range(2))
def test_whom_a_mapping_merges_is_held_out_as_one(seed, output, split, tmp_path):
    """Catches half of a person that stays for training, and pairs of his two halves that count as two people."""
    first = faces()
    second = faces(first=100, num=15)
    for label in range(10):
        second[label][0] = first[label][2]
    written(tmp_path / "a", first)
    written(tmp_path / "b", second)
    lines = ["a = a", "b = b", *(f"b:{label} a:{label}" for label in range(10)), "b:14 -"]
    (tmp_path / "who.mapping").write_text("\n".join(lines) + "\n")
    one = {("a", label): images for label, images in first.items()}
    one |= {("a" if label < 10 else "b", label): images for label, images in second.items() if 10 <= label < 14}
    for label in range(10):
        one["a", label] = first[label] + second[label]
    shown, train, pairs = split("who.mapping", "--ids", 20, "--pairs", 60, "--seed", seed, output=output)
    assert "kept together" not in shown, "the mapping has said who they are"
    assert f"held out 20 of {IDS + 4} identities" in shown
    owner = {image: who for who, images in one.items() for image in images}
    trained = {owner[image] for images in contents(train).values() for image in images}
    verified = {owner[image] for pair, _ in pairs for image in pair}
    assert not trained & verified
    assert len(trained) == IDS + 4 - 20
    assert all(len({owner[image] for image in images}) == 1 for images in contents(train).values())
    assert [owner[first] == owner[second] for (first, second), _ in pairs] == [same for _, same in pairs]
    assert all(first != second for (first, second), _ in pairs)


def test_too_few_people_are_left_to_hold_out(split, tmp_path):
    people = faces()
    for label in range(20):
        people[label].append(people[(label + 1) % 20][0])
    errors = split(written(tmp_path / "in", people), "--ids", 11, code=2)
    assert (
        "but got 11 of 30, of which 10 have two images and share none with the 20 that stay together. Give --ids 10" in errors
    )
    assert "Who is one person under two labels becomes one in a .mapping file." in errors
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
