"""Several data sets as one: labels behind labels, the digest of all, parts, and nobody twice without a word."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from attfc_planner.commands.option_checks import size_of_data
from attfc_planner.tune.holdout import split
from attfc_train import cli
from attfc_train.data.formats import twins
from attfc_train.data.formats.joined import JoinedFaces
from attfc_train.data.formats.mapping import MappedFaces
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.overlap import may_share_identities
from attfc_train.data.part import PartOfFaces
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from attfc_train.sources import MOST_SOURCES, joined_spec
from tests.contracts.dataset_contract import DatasetContract

A = "synthetic:4x3"
B = "synthetic:3x2+10"


class TestJoinedFaces(DatasetContract):
    @pytest.fixture
    def dataset(self, face_folder, tmp_path, face_file):
        write_recordio(tmp_path / "r" / "train.rec", [5, 5, 9], [face_file(5, 0), face_file(5, 1), face_file(9, 0)])
        return open_dataset(joined_spec([str(face_folder), str(tmp_path / "r"), B]))

    def test_labels_of_a_source_come_behind_the_highest_before(self, dataset):
        """Catches ranks for labels, and an offset by the number of identities: records have gaps."""
        assert isinstance(dataset, JoinedFaces)
        assert np.asarray(dataset.index.labels).tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7]
        assert dataset.index.original_labels.tolist() == [0, 1, 2, 3 + 5, 3 + 9, 13 + 10, 13 + 11, 13 + 12]
        assert not dataset.index.offsets.flags.writeable

    def test_images_are_the_sources(self, dataset):
        for source, start in zip(dataset.sources, dataset.starts, strict=False):
            for position in range(source.index.num_images):
                assert np.array_equal(dataset.encoded(start + position), source.encoded(position))
        assert "r/train.rec: train.rec key 1" in dataset.locate(8)

    def test_hints_go_to_the_sources_that_they_lie_in(self, dataset, monkeypatch):
        asked = []
        monkeypatch.setattr(dataset.sources[1], "read_ahead", lambda first, stop: asked.append((first, stop)))
        for first, stop in ((0, 8), (7, 10), (9, 17), (11, 17)):
            dataset.read_ahead(first, stop)
        assert asked == [(0, 2), (1, 3)]

    def test_neighbours_are_read_at_once_whatever_lies_above(self, dataset, tmp_path, monkeypatch):
        """Catches a set over records that reads its images one by one."""
        asked = []
        read = []
        records = dataset.sources[1]
        monkeypatch.setattr(records, "ask_for", lambda positions: asked.append(positions.tolist()))
        read_records = records.encoded_together
        monkeypatch.setattr(
            records, "encoded_together", lambda positions: read.append(positions.tolist()) or read_records(positions)
        )
        index = dataset.index
        above = PartOfFaces(MappedFaces(tmp_path / "m", dataset, np.arange(index.num_ids)), np.arange(1, index.num_ids))
        wanted = np.array([9, 0, 8, 7])
        contents = above.encoded_together(wanted)
        above.ask_for(np.sort(wanted))
        assert read == [[2, 1, 0]]
        assert asked == [[0, 1, 2]]
        assert all(np.array_equal(content, above.encoded(place)) for content, place in zip(contents, wanted, strict=True))


def test_the_digest_is_of_all_sources_in_their_order(face_folder):
    folder = str(face_folder)
    digests = {open_dataset(joined_spec(specs)).index.digest() for specs in ([A, folder], [folder, A], [A, B], [folder, A, B])}
    assert len(digests) == 4
    before = open_dataset(joined_spec([A, folder])).index.digest()
    assert open_dataset(joined_spec([A, folder])).index.digest() == before
    (face_folder / "a" / "0.jpg").rename(face_folder / "a" / "1.jpg")
    assert open_dataset(joined_spec([A, folder])).index.digest() != before


def test_a_part_is_of_the_whole():
    spec = joined_spec([A, B])
    parts = [open_dataset(f"{spec}@{first}:{stop}") for first, stop in ((0, 4), (4, 7))]
    labels = [set(part.index.original_labels.tolist()) for part in parts]
    assert labels[0].isdisjoint(labels[1])
    assert labels[0] | labels[1] == set(open_dataset(spec).index.original_labels.tolist())


def test_an_index_over_several(tmp_path, face_folder, monkeypatch):
    """Catches a path in it that counts from where it was written."""
    monkeypatch.chdir(tmp_path)
    spec = f"{joined_spec(['faces', B])}@0:5"
    write_subset(tmp_path / "some.subset", spec, open_dataset(spec), range(6))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_dataset("../some.subset").index.num_images == 6
    (tmp_path / "moved").mkdir()
    for name in ("faces", "some.subset"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert open_dataset("../moved/some.subset").index.num_images == 6
    assert may_share_identities(str(tmp_path / "moved" / "some.subset"), str(tmp_path / "moved" / "faces"))


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([A, A], f"got '{A}' twice"),
        ([A, B, A], "twice"),
        ([A, f"{A}@0:2"], "share images"),
        ([f"{A}@0:3", f"{A}@2:4"], "share images"),
        ([A, joined_spec([B, A])], "share images"),
        ([joined_spec([A, B]), joined_spec([B, "synthetic:9x9+90"])], "share images"),
    ],
)
def test_the_same_images_twice_are_refused(specs, said):
    with pytest.raises(UsageError, match=said):
        open_dataset(joined_spec(specs))


def test_one_folder_in_two_ways_is_refused(face_folder, monkeypatch):
    monkeypatch.chdir(face_folder.parent)
    with pytest.raises(UsageError, match="share images"):
        open_dataset(joined_spec(["faces", str(face_folder)]))


def test_indices_over_one_set_may_hold_different_images(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.subset", "b.subset")]
    for path, positions in zip(paths, ([0, 1, 3], [6, 9]), strict=True):
        write_subset(tmp_path / path, A, open_dataset(A), positions)
    assert open_dataset(joined_spec(paths)).index.num_images == 5
    with pytest.raises(UsageError, match="share images"):
        open_dataset(joined_spec([paths[0], A]))


def test_parts_that_do_not_overlap_are_two_sources():
    assert open_dataset(joined_spec([f"{A}@0:2", f"{A}@2:4"])).index.num_images == 12


@pytest.mark.parametrize("spec", ['["a"]', '["a", 3]', "[]", '["a", ""]', "[" * 70_000, '["a"', json.dumps(["a"] * 65)])
def test_what_is_no_list_of_data_sets(spec):
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(spec)


def test_a_source_that_is_not_there_is_named():
    with pytest.raises(DataError, match="'nowhere', which does not exist"):
        open_dataset(joined_spec([A, "nowhere"]))


def test_too_many_sources():
    with pytest.raises(UsageError, match=f"at most {MOST_SOURCES}"):
        joined_spec(["a"] * (MOST_SOURCES + 1))


def test_labels_that_do_not_fit(tmp_path, face_folder):
    (tmp_path / "high.txt").write_text(f"faces/a/0.jpg {10**18 - 1}\nfaces/b/0.jpg 0\n")
    paths = [f"high{number}.txt" for number in range(10)]
    for path in paths:
        (tmp_path / path).write_bytes((tmp_path / "high.txt").read_bytes())
    with pytest.raises(DataError, match="highest labels"):
        open_dataset(joined_spec([str(tmp_path / path) for path in paths]))


def test_what_sources_pass_over_is_said_once_with_all_of_it(face_folder, tmp_path, face_file):
    (face_folder / "b" / ".hidden").write_text("")
    (tmp_path / "more" / "x").mkdir(parents=True)
    (tmp_path / "more" / "y").mkdir(parents=True)
    for name in ("x/0.jpg", "y/0.jpg", "y/.hidden"):
        (tmp_path / "more" / name).write_bytes(face_file(40, len(name)))
    lines = open_dataset(joined_spec([str(face_folder), str(tmp_path / "more")])).index.report.lines()
    assert f"{tmp_path}/more: 2 identities, 2 images, labels as there + 3" in lines
    assert [line for line in lines if "hidden" in line] == ["hidden files and folders passed over: 2, e.g. b/.hidden"]


def checked(monkeypatch, capsys, *arguments) -> str:
    """Return what ``data check`` says of too few people, on one line."""
    monkeypatch.setattr(sys, "argv", ["attfc-train", "data", "check", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    output, errors = capsys.readouterr()
    assert (left.value.code, "Traceback" in errors) == (4, False), errors
    return " ".join(output.split())


class TestTwins:
    @pytest.fixture
    def specs(self, face_folder, tmp_path, face_file):
        """Image 1 of b and image 2 of c are in the records too, the one of them twice."""
        images = [face_file(0, 1), face_file(50, 0), face_file(2, 2), face_file(2, 2)]
        write_recordio(tmp_path / "r" / "train.rec", [3, 3, 7, 7], images)
        return [str(face_folder), str(tmp_path / "r" / "train.rec")]

    def test_people_in_two_sources_are_said(self, specs):
        """Catches a comparison of the first image of a person only, and one within a source."""
        lines = open_dataset(joined_spec(specs)).index.report.lines()
        folder, records = specs
        assert f"{twins.TWINS}: 3, e.g. {records}: train.rec key 1 and {folder}/b/1.jpg" in lines
        assert (
            f"identities that share images: 2 of {folder}, 2 of {records} (c of {folder} and 7 of {records}: 2; "
            f"b of {folder} and 3 of {records}: 1); a .mapping file makes one of two"
        ) in lines

    def test_not_where_that_takes_long(self, specs, monkeypatch):
        monkeypatch.setattr(twins, "MOST_AT_ONCE", 11)
        lines = open_dataset(joined_spec(specs)).index.report.lines()
        assert f"{twins.NOT_COMPARED}, as there are 12: attfc-train data check looks" in lines
        assert not any(twins.TWINS in line for line in lines)

    def test_a_check_of_all_images_looks_in_any_case(self, specs, monkeypatch, capsys, tmp_path):
        monkeypatch.setattr(twins, "MOST_AT_ONCE", 11)
        mapping = tmp_path / "people.mapping"
        mapping.write_text(f"f = faces\nr = {specs[1]}\nr:3 f:b\n")
        for names, count in ((specs, 3), ([str(mapping)], 2)):
            said = checked(monkeypatch, capsys, *names, "--sample", "0")
            assert f"problem {twins.TWINS}: {count} of 12, e.g." in said
            assert said.count(twins.TWINS) == 1, "once is enough"
            assert said.count(f"c of {specs[0]} and 7 of {specs[1]}: 2") == 1
            assert twins.NOT_COMPARED not in said

    def test_a_check_of_some_images_says_that_the_others_were_not_compared(self, specs, monkeypatch, capsys):
        monkeypatch.setattr(twins, "MOST_AT_ONCE", 11)
        monkeypatch.setattr("attfc_train.data.survey.look._FOR_MEAN_FACE", 2)
        said = checked(monkeypatch, capsys, *specs, "--sample", "2")
        assert said.count(twins.NOT_COMPARED) == 1

    def test_a_check_advises_to_merge_people_and_not_to_remove_images(self, specs, monkeypatch, capsys, tmp_path):
        """Catches the advice for a wrong label within a set, and sources that a part or an index above them hides."""
        whole = open_dataset(joined_spec(specs))
        write_subset(tmp_path / "all.subset", joined_spec(specs), whole, range(whole.index.num_images))
        for names in (specs, [f"{joined_spec(specs)}@0:{whole.index.num_ids}"], [str(tmp_path / "all.subset")]):
            said = checked(monkeypatch, capsys, *names)
            assert f"problem {twins.TWINS}: 3 of 12, e.g." in said
            assert said.count(twins.TWINS) == 1
            assert "two labels of one person: merge them in a .mapping file, or" in said
            assert "one of the two labels is wrong" not in said

    def test_damaged_images_are_not_alike(self, face_folder, tmp_path):
        (tmp_path / "list.txt").write_text("big.jpg 1\nbig2.jpg 2\nfaces/a/0.jpg 1\nfaces/b/0.jpg 2\n")
        for name in ("big.jpg", "big2.jpg"):
            with open(tmp_path / name, "wb") as file:
                file.truncate(65 * 2**20)
        (tmp_path / "other.txt").write_bytes((tmp_path / "list.txt").read_bytes())
        lines = open_dataset(joined_spec([str(tmp_path / "list.txt"), str(tmp_path / "other.txt")])).index.report.lines()
        assert any(f"{twins.TWINS}: 2," in line for line in lines)


def test_verification_people_are_found_among_several():
    spec = joined_spec([A, B])
    assert may_share_identities(spec, A)
    assert may_share_identities(spec, f"{B}@1:3")
    assert may_share_identities(f"{spec}@0:3", f"{spec}@2:5")
    assert not may_share_identities(f"{spec}@0:3", f"{spec}@3:7")
    assert not may_share_identities(joined_spec([f"{A}@0:2", B]), f"{A}@2:4")
    assert not may_share_identities(spec, "synthetic:3x2+20")


def test_plans_and_tunings_take_several():
    spec = joined_spec(["synthetic:50x3", "synthetic:40x2+50"])
    assert size_of_data(open_dataset(spec), None, None) == (90, 230)
    made = split(spec, 90)
    held_out, training = (open_dataset(each).index.original_labels for each in (made.val[0], made.training_part(40)))
    assert set(held_out.tolist()).isdisjoint(training.tolist())
    assert not may_share_identities(made.training_part(40), made.val[0])
