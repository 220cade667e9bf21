"""``attfc-train data cluster``, as it is typed: loose images become a data set that trains, also after a stop."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from attfc_train import cli
from attfc_train.cluster.online import OnlineClustering
from attfc_train.cluster.settings import ClusterSettings
from attfc_train.commands import cluster_streams
from attfc_train.data.formats.subset_file import read_header
from attfc_train.data.source import open_dataset
from tests.architecture.modules import ROOT
from tests.cli.conftest import DOCUMENT, face

PEOPLE = np.random.default_rng(0).permutation(np.repeat(np.arange(6), [5, 4, 3, 3, 2, 1]))
"""Whose each image is."""


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """``call("data", "cluster", ..., code=0)``: what is shown, in the working folder `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0, columns="100") -> str:
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(sys, "argv", ["attfc-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), output + errors
        return " ".join((output + errors).split())

    return run


@pytest.fixture
def photos(tmp_path):
    """Images in one folder; those of a person are one picture, so that any model finds them to be one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for place, person in enumerate(PEOPLE):
        (folder / f"{place:02d}.jpg").write_bytes(face(int(person), 0))
    return folder


@pytest.fixture
def people(tmp_path):
    """The same in a folder per person."""
    folder = tmp_path / "people"
    for place, person in enumerate(PEOPLE):
        (folder / str(person)).mkdir(parents=True, exist_ok=True)
        (folder / str(person) / f"{place:02d}.jpg").write_bytes(face(int(person), 0))
    return folder


def features(path, files, names=PEOPLE):
    """A file of embeddings, in which those of a person are one direction and a little."""
    rng = np.random.default_rng(1)
    table = np.eye(16)[names] + 0.05 * rng.standard_normal((len(names), 16))
    np.savez(path, features=table.astype(np.float32), files=np.array([str(file) for file in files]))
    return path


def partition(path):
    dataset = open_dataset(str(path))
    names = [int(dataset.locate(position)[-6:-4]) for position in range(dataset.index.num_images)]
    return {frozenset(names[place] for place in dataset.index.members_of(i)) for i in range(dataset.index.num_ids)}


RIGHT = {frozenset(np.flatnonzero(person == PEOPLE).tolist()) for person in range(5)}
"""The identities of at least two images."""


def test_images(photos, call, trained_run):
    (photos / "broken.jpg").write_bytes(b"no picture")
    shown = call("data", "cluster", "photos", "--model", trained_run, "-o", "a.subset", "--threshold", "1e-3")
    assert "data set photos, 19 images" in shown
    assert "found images that cannot be decoded, left out: 1, e.g. photos/broken.jpg" in shown
    assert "clustered 18 images (1 left out): 6 clusters, 6 identities" in shown
    assert "dropped 1 images of 1 identities with fewer than 2 images" in shown
    assert "kept 17 images of 5 identities, 2 to 5, median 3 images each" in shown
    assert partition("a.subset") == RIGHT
    assert sorted(os.listdir()) == ["a.subset", "photos"], "the state is gone"


def test_features(photos, call):
    """Also in another order than the folder's, and without one of its images."""
    order = np.random.default_rng(2).permutation(len(PEOPLE))[1:]
    features("f.npz", [photos / f"{place:02d}.jpg" for place in order], PEOPLE[order])
    call("data", "cluster", "f.npz", "-o", "a.subset", "--min-images", "1")
    kept = {frozenset(np.flatnonzero((person == PEOPLE) & np.isin(np.arange(18), order)).tolist()) for person in range(6)}
    assert partition("a.subset") == kept - {frozenset()}


def test_the_index_says_how_it_was_made(photos, call, trained_run):
    """Catches distances of six digits, which make another index, and the run's other model."""
    near = ["--threshold", "0.0012345678", "--connections", "4"]
    call("data", "cluster", "photos", "--model", trained_run, "--which", "last", *near, "-o", "a.subset")
    made = shlex.split(read_header(Path("a.subset")).made)
    given = dict(itertools.pairwise(made))
    assert (given["--threshold"], given["--which"]) == ("0.0012345678", "last")
    settings = ClusterSettings.scaled(0.0012345678)
    assert (float(given["--connect"]), float(given["--connect-weak"])) == (settings.connect, settings.connect_weak)
    call(*["b.subset" if word == "a.subset" else word for word in made[1:]])
    assert partition("b.subset") == partition("a.subset")


def test_truth(people, call):
    files = sorted(people.glob("*/*"))
    features("f.npz", files, [int(file.parent.name) for file in files])
    shown = call("data", "cluster", "f.npz", "-o", "a.subset", "--truth")
    assert "true identities 6 pairwise F 1.0000 (precision 1.0000, recall 1.0000) BCubed F 1.0000" in shown
    features("f.npz", files, [int(file.parent.name) // 2 for file in files])
    assert "precision 1.0000, recall 1.0000" not in call("data", "cluster", "f.npz", "-o", "b.subset", "--truth")


@pytest.mark.parametrize("source", ["images", "features"])
def test_stopped_and_gone_on(source, photos, call, trained_run, monkeypatch):
    """Catches a state that is a batch behind, and images that are clustered twice."""
    monkeypatch.setattr(cluster_streams, "_BATCH", 4)
    monkeypatch.setattr(cluster_streams, "_ROWS", 4)
    arguments = ["photos", "--model", trained_run, "--threshold", "1e-3"]
    if source == "features":
        arguments = [features("f.npz", sorted(photos.iterdir()))]
    call("data", "cluster", *arguments, "-o", "whole.subset")
    add = OnlineClustering.add

    def add_and_stop(clustering, rows):
        add(clustering, rows)
        if clustering.num_faces == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(OnlineClustering, "add", add_and_stop)
        shown = call("data", "cluster", *arguments, "-o", "a.subset", code=128 + signal.SIGTERM)
    assert "Stopped behind image 8 of 18, saved in a.subset.state. Continue: the same command again." in shown
    assert not os.path.exists("a.subset")
    shown = call("data", "cluster", *arguments, "-o", "a.subset", "--connections", "4", code=5)
    assert "must be of this one, but got another settings" in shown
    shown = call("data", "cluster", *arguments, "-o", "a.subset")
    assert "goes on behind image 8, from a.subset.state" in shown
    assert partition("a.subset") == partition("whole.subset") == RIGHT
    indices = [open_dataset(name).index for name in ("a.subset", "whole.subset")]
    assert indices[0].digest() == indices[1].digest()
    assert not os.path.exists("a.subset.state")


def test_too_few_identities_keep_the_work(photos, call, monkeypatch):
    """Catches a state that is thrown away before the index is written."""
    features("f.npz", sorted(photos.iterdir()))
    shown = call("data", "cluster", "f.npz", "-o", "a.subset", "--min-images", "5", code=4)
    assert "must have --min-images 5 images, but got 1 of 6 found at --threshold 0.7" in shown
    shown = call("data", "cluster", "f.npz", "-o", "a.subset", "--min-images", "5", "--threshold", "0.6", code=4)
    assert "found at --threshold 0.6" in shown, "what the message advises is not refused"
    shown = call("data", "cluster", "f.npz", "-o", "a.subset", "--min-images", "5", code=4)
    monkeypatch.setattr(OnlineClustering, "add", None)
    assert "goes on behind image 18" in call("data", "cluster", "f.npz", "-o", "a.subset")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["photos", "-o", "a.subset"], 2, "embeddings are of one: DATA.npz, or a --model, but got neither"),
        (["f.npz", "-o", "a.subset", "--model", "x"], 2, "but got both"),
        (["photos", "-o", "a.subset", "--model", "x"], 5, "--model must exist, but got 'x'"),
        (["f.npz", "-o", "a.npz"], 2, "--output must be a .subset file"),
        (["f.npz", "-o", "there.subset"], 2, "--output must be a new file, but got 'there.subset', which exists"),
        (["f.npz", "-o", "a.subset", "--threshold", "3"], 2, "--threshold must be a number from 0 to 2"),
        (["f.npz", "-o", "a.subset", "--threshold", "1.9"], 2, "distances must be .* a --threshold above 0 and below 1.25"),
        (["f.npz", "-o", "a.subset", "--connect", "0.5"], 2, "--threshold <= --connect <= .* Leave --connect"),
        (["f.npz", "-o", "a.subset", "--robust", "0"], 2, "--robust must be a whole number of at least 1"),
        (["f.npz", "-o", "a.subset", "--truth"], 2, "--truth needs a data set that knows who is who, but got 18 images"),
        (["g.npz", "-o", "a.subset"], 4, "must be in .*, but got 1 that are not, e.g. .*missing.jpg"),
        (["twice.npz", "-o", "a.subset"], 4, "must have each image once, but got 1 again"),
        (["nothing", "-o", "a.subset", "--model", "x"], 4, "'nothing', which does not exist"),
        (["nothing.npz", "-o", "a.subset"], 4, "'nothing.npz' must be readable, but got No such file"),
    ],
)
def test_refusals(photos, call, arguments, code, words):
    files = sorted(photos.iterdir())
    features("f.npz", files)
    features("g.npz", [*files[:-1], photos / "missing.jpg"])
    features("twice.npz", [*files[:-1], files[0]])
    Path("there.subset").write_bytes(b"somebody's")
    assert re.search(words, call("data", "cluster", *arguments, code=code))
    assert Path("there.subset").read_bytes() == b"somebody's"


SECTION = "## From faces without labels to a training"


def commands_of_the_page():
    """The commands of the section, in order."""
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    lines = [line.strip().removeprefix("$ ") for line in page.splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in lines if line.startswith("attfc-train ")]


def test_the_whole_way_of_the_page(photos, people, call, trained_run, tmp_path):
    """Unlabelled faces, identities, AttFC: the commands are those of docs/data.md, made small."""
    people.rename(tmp_path / "faces")
    shutil.copytree(trained_run, tmp_path / "runs" / "faces")
    small = [f"{section}.{key}={value}" for section in ("model", "optim") for key, value in DOCUMENT[section].items()]
    small = [part for setting in [*small, "run.steps=2", "head.chunk_slots=16"] for part in ("--set", setting)]
    near = ["--threshold", "1e-3", "--connect", "1e-3", "--connect-weak", "1e-3"]
    extra = {"cluster": near, "train": [*small, "--device", "cpu"], "embed": [], "info": []}
    done = []
    for _, *arguments in commands_of_the_page():
        kind = next((word for word in arguments if word in extra), "train")
        call(*arguments, *extra[kind])
        done.append(kind)
    assert done == ["cluster", "info", "train", "embed", "cluster"]
    assert (tmp_path / "runs" / "people" / "model.pt").exists()
