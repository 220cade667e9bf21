"""People who share an image, against a dictionary of all bytes."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.survey.shared import shared_images
from attfc_train.errors import DataError


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), shade, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


CONTENTS = [*map(png, range(6)), b"", b"no image", None]
"""None: a record that is damaged."""
BAD = {6, 7, 8}


class Faces:
    """A `FaceDataset` of some of `CONTENTS`."""

    name = "faces"

    def __init__(self, labels, contents):
        self.contents = contents
        self.index = IdentityIndex.from_labels(labels)

    def encoded(self, position):
        content = CONTENTS[self.contents[position]]
        if content is None:
            raise DataError("a record must be whole", "none", "Copy it again.")
        return content

    def locate(self, position):
        return f"image {position}"


def truth(labels, contents):
    """Each image whose bytes come again with the first of them, by going through the images one by one."""
    first: dict[int, int] = {}
    again = {}
    for place, content in enumerate(contents):
        if content not in BAD and first.setdefault(content, place) != place:
            again[place] = first[content]
    return again, {place: other for place, other in again.items() if labels[place] != labels[other]}


faces = st.lists(st.tuples(st.integers(0, 4), st.integers(0, len(CONTENTS) - 1)), min_size=2, max_size=60)


@given(faces)
@settings(max_examples=60, deadline=None)
def test_who_shares_images(pairs):
    """Catches empty files that make one of all people, and equal images of one person that count for two."""
    labels = [0, 1, *(label for label, _ in pairs)]
    contents = [0, 1, *(content for _, content in pairs)]
    dataset = Faces(labels, contents)
    again, shared = truth(labels, contents)
    found = shared_images(dataset)
    assert dict(zip(found.repeats.others.tolist(), found.repeats.firsts.tolist(), strict=True)) == again
    assert dict(zip(found.others.tolist(), found.firsts.tolist(), strict=True)) == shared
    people = {dataset.index.labels[place] for pair in shared.items() for place in pair}
    assert found.people(dataset.index).tolist() == sorted(people)
    if not shared:
        assert found.line(dataset) == ""
        return
    place, other = min(shared.items())
    assert found.line(dataset) == (
        f"{len(people)} identities that share images: {len(shared)} with the very bytes of another identity's, "
        f"e.g. image {place} and image {other}"
    )


def test_people_are_told_of_images_as_they_are_read():
    done: list[int] = []
    shared_images(Faces([0, 1] * 40, [0, 1] * 40), done.append)
    assert sum(done) == 80
