from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.source import open_dataset
from attfc_train.data.survey.findings import REPEATED, SHARED, UNDECODABLE
from attfc_train.data.survey.look import look
from attfc_train.data.survey.montage import montage
from attfc_train.data.survey.problems import problems_of_counts
from attfc_train.data.survey.sample import one_a_person, rows_of_people, sampled


def found(dataset, most=0):
    seen = look(dataset, most, lambda count: None)
    return seen, {each.kind: (each.count, each.examples[0]) for each in seen.findings.all()}


def test_a_sound_folder(face_folder):
    seen, kinds = found(open_dataset(str(face_folder)))
    assert kinds == {}
    assert (seen.num_seen, seen.sizes) == (8, {(48, 48): 8})
    assert seen.alignment.verdict == "cannot tell"


def test_equal_bytes_are_told_by_whose_they_are(face_folder, face_file):
    (face_folder / "c" / "9.jpg").write_bytes(face_file(0, 0))  # b's
    (face_folder / "b" / "8.jpg").write_bytes(face_file(0, 0))
    _, kinds = found(open_dataset(str(face_folder)))
    b, c = face_folder / "b", face_folder / "c"
    assert kinds == {
        REPEATED: (1, f"{b / '8.jpg'} and {b / '0.jpg'}"),
        SHARED: (1, f"{c / '9.jpg'} and {b / '0.jpg'}"),
    }


def test_what_cannot_be_decoded_is_counted_with_its_reason(face_folder):
    (face_folder / "c" / "1.jpg").write_bytes(b"\xff\xd8 no jpeg")
    seen, kinds = found(open_dataset(str(face_folder)))
    assert kinds[UNDECODABLE][0] == 1
    assert "c/1.jpg (10 bytes" in kinds[UNDECODABLE][1]
    assert seen.sizes.total() == 7


def test_sizes_are_width_and_height(face_folder, face_file):
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "PNG")
    (face_folder / "c" / "1.png").write_bytes(file.getvalue())
    assert found(open_dataset(str(face_folder)))[0].sizes[(30, 20)] == 1


def test_the_sample_is_random_the_same_every_time_and_bounded():
    index = IdentityIndex.from_labels(np.arange(50_000) // 5)
    chosen = sampled(index, 1000)
    assert chosen.size == np.unique(chosen).size == 1000
    assert np.array_equal(chosen, sampled(index, 1000))
    assert 20_000 < chosen.mean() < 30_000
    assert sampled(index, 0).size == sampled(index, 60_000).size == 50_000


def test_everybody_gives_one_image_before_somebody_gives_a_second():
    index = IdentityIndex.from_labels([0] * 7 + [1] + [2] * 3)
    chosen = one_a_person(index, 5)
    assert np.bincount(index.labels_of(chosen)).tolist() in ([2, 1, 2], [3, 1, 1])
    assert np.bincount(index.labels_of(one_a_person(index, 3))).tolist() == [1, 1, 1]
    assert one_a_person(index, 99).tolist() == list(range(11))


def test_large_sets_are_sampled(colours):
    dataset = colours(np.arange(3000) // 3)
    seen, _ = found(dataset, 100)
    assert 100 <= seen.num_seen <= 500, "those for the mean face beside the sample"


def test_a_hash_of_the_content_tells_equal_bytes(colours):
    """Colours repeat every 256 images: 300 images of 100 people have 44 that are somebody else's."""
    _, kinds = found(colours(np.arange(300) // 3))
    assert kinds[SHARED][0] == 44


def test_the_montage_has_a_row_for_each_person(face_folder):
    rows = rows_of_people(open_dataset(str(face_folder)).index, 10, 3)
    assert sorted(map(len, rows)) == [1, 3, 3]
    picture = montage(open_dataset(str(face_folder)))
    assert picture.shape == (3 * 116 + 4, 4 * 116 + 4, 3)
    assert (picture[4:116, 4:116].std() > 5, picture[240:, 130:].min()) == (True, 255)


def test_a_damaged_image_is_red_in_the_montage(face_folder):
    (face_folder / "c" / "1.jpg").write_bytes(b"\xff\xd8 no jpeg")
    picture = montage(open_dataset(str(face_folder)))
    assert (picture == (200, 40, 40)).all(axis=2).sum() == 112 * 112


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 0, 1, 1], ["only 2 identities"]),
        (list(range(20)), ["one photo a person"]),
        ([*range(20), *range(10)], ["10 of 20 identities have a single image"]),
        ([*range(20), *range(20)], []),
        (list(range(3)), ["only 3 identities", "one photo a person"]),
    ],
)
def test_what_numbers_alone_say(labels, words):
    problems = list(problems_of_counts(IdentityIndex.from_labels(labels)))
    assert len(problems) == len(words)
    assert all(word in problem.text for problem, word in zip(problems, words, strict=True))
