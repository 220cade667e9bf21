"""Identities that lie deeper in a folder, and the index of a large folder that is kept while no folder changes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from attfc_train.data.formats import folder
from attfc_train.data.formats.folder import FolderFaces
from attfc_train.data.formats.names import Names
from attfc_train.data.overlap import may_share_identities
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError
from tests.contracts.dataset_contract import DatasetContract

FILES = ("s1/ann/0.jpg", "s1/ann/1.jpg", "s1/ann/more/2.jpg", "s1/bob/0.jpg", "s1-x/ann/0.jpg", "s2/cid/deep/er/0.jpg")


@pytest.fixture
def sites(tmp_path: Path, face_file) -> Path:
    root = tmp_path / "sites"
    for number, name in enumerate(FILES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(face_file(number, 0))
    return root


def named(dataset: FolderFaces) -> dict[str, list[str]]:
    """Return the images of each identity, by what people call them."""
    return {
        dataset.identity_name(identity): [
            str(Path(dataset.locate(int(place))).relative_to(dataset._root / dataset.identity_name(identity)))
            for place in dataset.index.members_of(identity)
        ]
        for identity in range(dataset.index.num_ids)
    }


class TestPeopleBelowSites(DatasetContract):
    @pytest.fixture
    def dataset(self, sites):
        return open_dataset(f"{sites}/*")

    def test_a_person_of_two_sites_is_two_identities(self, dataset, sites):
        assert named(dataset) == {
            "s1-x/ann": ["0.jpg"],
            "s1/ann": ["0.jpg", "1.jpg", "more/2.jpg"],
            "s1/bob": ["0.jpg"],
            "s2/cid": ["deep/er/0.jpg"],
        }
        assert dataset.name == f"{sites}/*"
        (remark,) = dataset.index.report.remarks
        assert remark.kind.startswith("images in folders within an identity's folder")
        assert remark.count == 2


class TestEveryFolder(DatasetContract):
    @pytest.fixture
    def dataset(self, sites):
        return open_dataset(f"{sites}/**")

    def test_every_folder_with_images_is_an_identity(self, dataset):
        assert named(dataset) == {
            "s1-x/ann": ["0.jpg"],
            "s1/ann": ["0.jpg", "1.jpg"],
            "s1/ann/more": ["2.jpg"],
            "s1/bob": ["0.jpg"],
            "s2/cid/deep/er": ["0.jpg"],
        }
        assert dataset.index.report.lines() == []


def test_without_a_pattern_the_sites_are_people_and_that_is_said(sites):
    dataset = open_dataset(str(sites))
    assert dataset.index.counts.tolist() == [4, 1, 1]
    assert any("FOLDER/*" in line for line in dataset.index.report.lines())


@pytest.mark.parametrize("pattern", ["*/*", "*/*/"])
def test_each_star_is_a_level(sites, pattern):
    with pytest.raises(DataError, match="at least 2 identities"):
        open_dataset(f"{sites}/*/{pattern}")  # only s2/cid/deep/er lies so deep
    assert list(named(open_dataset(f"{sites}/*/*/")) if pattern == "*/*/" else ["s1/ann/more", "s2/cid/deep"]) == [
        "s1/ann/more",
        "s2/cid/deep",
    ]


def test_parts_and_people_are_those_of_the_folder(sites, face_file):
    assert open_dataset(f"{sites}/*@0:2").index.num_ids == 2
    assert may_share_identities(f"{sites}/*", str(sites))
    assert may_share_identities(f"{sites}/**", f"{sites}/*")
    assert not may_share_identities(f"{sites}/*@0:2", f"{sites}/*@2:4")
    os.symlink("s1", sites / "s3")
    os.symlink("../s1/ann", sites / "s2" / "again")
    os.symlink("../..", sites / "s2" / "up")
    for levels, counts in (("*", [1, 3, 1, 1]), ("**", [1, 2, 1, 1, 1])):
        assert open_dataset(f"{sites}/{levels}").index.counts.tolist() == counts


def test_images_above_the_people_are_counted(sites, face_file):
    (sites / "s1" / "9.jpg").write_bytes(face_file(9, 0))
    (sites / "empty" / "er").mkdir(parents=True)
    report = open_dataset(f"{sites}/*").index.report
    remarks = {remark.kind.partition(" (")[0]: remark for remark in report.remarks}
    assert remarks["images passed over that lie in no identity's folder"].example == "s1/9.jpg"
    assert remarks["folders passed over that hold no image"].example == "empty/er"
    assert not [line for line in open_dataset(f"{sites}/**").index.report.lines() if "in no identity" in line]


def test_a_folder_with_stars_in_its_name_is_that_folder(tmp_path, face_file):
    for person in "ab":
        (tmp_path / "x" / "*" / person).mkdir(parents=True)
        (tmp_path / "x" / "*" / person / "0.jpg").write_bytes(face_file(0, 0))
    assert open_dataset(f"{tmp_path}/x/*").name == f"{tmp_path}/x/*"
    assert open_dataset(f"{tmp_path}/x/*").locate(0) == f"{tmp_path}/x/*/a/0.jpg"


class TestKept:
    @pytest.fixture(autouse=True)
    def every_size(self, monkeypatch, tmp_path):
        monkeypatch.setattr(folder, "FEWEST", 1)
        monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "cache"))

    @pytest.fixture
    def settled(self, sites):
        """The folder as somebody left it yesterday."""
        self.settle(sites)
        return sites

    @staticmethod
    def settle(root, ago=86_400.0):
        for path in (root, *root.rglob("*")):
            if path.is_dir():
                os.utime(path, (time.time() - ago,) * 2)

    @staticmethod
    def kept(root):
        return root.with_name(f".{root.name}.folder-1-2.index")

    @staticmethod
    def no_look(monkeypatch):
        monkeypatch.setattr(folder, "list_identities", lambda *_: pytest.fail("the folder was listed"))
        monkeypatch.setattr(folder, "readable_images", lambda *_: pytest.fail("images were decoded"))

    def test_the_second_opening_lists_nothing(self, settled, monkeypatch):
        (settled / "s1" / "bob" / "0.jpg").write_bytes(b"no image")  # nobody is left of him
        self.settle(settled)
        first = open_dataset(f"{settled}/*")
        assert any("kept as" in line for line in first.index.report.lines())
        self.no_look(monkeypatch)
        second = open_dataset(f"{settled}/*")
        assert named(first) == named(second)
        assert "s1/bob" not in named(second)
        assert first.index.digest() == second.index.digest()
        assert first.index.report.remarks == second.index.report.remarks
        for name in ("labels", "offsets", "members", "original_labels"):
            assert np.array_equal(getattr(first.index, name), getattr(second.index, name))
        assert all(first.encoded(place) == second.encoded(place) for place in range(5))

    def test_the_digest_is_the_one_without_a_kept_index(self, settled, monkeypatch):
        first, second = (open_dataset(f"{settled}/*").index.digest() for _ in "ab")
        monkeypatch.setattr(folder, "FEWEST", 100)
        assert open_dataset(f"{settled}/*").index.digest() == first == second

    @pytest.mark.parametrize(
        "change",
        [
            lambda root: (root / "s1" / "ann" / "9.jpg").write_bytes((root / "s1" / "ann" / "0.jpg").read_bytes()),
            lambda root: (root / "s1" / "ann" / "more" / "2.jpg").unlink(),
            lambda root: (root / "s1" / "ann" / "0.jpg").rename(root / "s1" / "ann" / "5.jpg"),
            lambda root: (root / "s1" / "bob").rename(root / "s2" / "bob"),
            lambda root: (root / "s1" / "new").mkdir(),
            lambda root: (root / "stray.jpg").write_bytes(b""),
            lambda root: (root / "s2" / "cid" / "deep" / "er" / "0.jpg").rename(root / "s2" / "cid" / "deep" / "er" / "1.png"),
        ],
    )
    def test_any_name_that_changes_is_noticed(self, settled, monkeypatch, change):
        open_dataset(f"{settled}/*")
        change(settled)
        with monkeypatch.context() as patch:
            self.no_look(patch)
            with pytest.raises(pytest.fail.Exception):
                open_dataset(f"{settled}/*")
        again = open_dataset(f"{settled}/*")
        monkeypatch.setattr(folder, "FEWEST", 100)
        assert named(again) == named(open_dataset(f"{settled}/*"))

    def test_a_folder_that_just_changed_keeps_none(self, settled):
        """Catches a change in the moment of the first look, which would leave the folder's time as it is."""
        os.utime(settled / "s2" / "cid")
        report = open_dataset(f"{settled}/*").index.report
        assert not self.kept(settled).exists()
        assert not any("index" in line for line in report.lines())

    def test_each_pattern_has_its_own(self, settled):
        counts = [open_dataset(f"{settled}{pattern}").index.num_ids for pattern in ("", "/*", "/**") * 2]
        assert counts == [3, 4, 5] * 2

    @pytest.mark.parametrize("name", [b"/etc/x", b"../../x", b"s1/../../x"])
    def test_names_that_lead_elsewhere_are_not_believed(self, name):
        """The kept file may have come with the data, from anybody."""
        with pytest.raises(ValueError, match="a path"):
            Names([b"a", name]).check()
        Names([b"a..b", b"..c", b"d..", b"x.", b".y", b""]).check()

    def test_a_damaged_one_counts_as_missing(self, settled):
        first = named(open_dataset(f"{settled}/*"))
        content = bytearray(self.kept(settled).read_bytes())
        self.kept(settled).chmod(0o644)
        for place in (40, len(content) // 2, len(content) - 70):
            damaged = bytearray(content)
            damaged[place] ^= 1
            self.kept(settled).write_bytes(damaged)
            assert named(open_dataset(f"{settled}/*")) == first
            self.kept(settled).chmod(0o644)


class TestNames:
    def test_places_in_the_order_of_bytes(self):
        names = Names([b"", b"a", b"a/b", b"ab", b"b"])
        assert [names.place_of(name) for name in names] == [0, 1, 2, 3, 4]
        assert [names.place_of(name) for name in (b"a-", b"c", b"aa")] == [None] * 3
        assert Names().place_of(b"a") is None

    def test_chosen(self):
        names = Names([b"ab", b"", b"c", b"def"])
        assert list(names.chosen(np.array([True, True, False, True]))) == [b"ab", b"", b"def"]
        assert list(names.chosen(np.zeros(4, bool))) == []
