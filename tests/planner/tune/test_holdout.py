"""No short training sees who is verified."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.tune.holdout import LEAST_IDS, split
from attfc_train.data.overlap import may_share_identities
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, VerificationSetError


@given(st.integers(LEAST_IDS, 10**7), st.integers(0, 10**6), st.floats(0, 1))
def test_training_and_verification_are_disjoint(num_ids: int, first: int, share: float) -> None:
    made = split(f"faces@{first}:{first + num_ids}", num_ids)
    part = made.training_part(max(2, int(share * made.num_trainable)))
    assert not may_share_identities(part, made.val[0])
    assert made.val == (f"faces@{first + made.num_trainable}:{first + num_ids}",)
    assert 0.74 * num_ids <= made.num_trainable < num_ids


def test_the_identities_themselves_are_disjoint() -> None:
    made = split("synthetic:60x2", 60)
    training, held_out = (open_dataset(spec).index.original_labels for spec in (made.training_part(45), made.val[0]))
    assert (len(training), len(held_out)) == (45, 15)
    assert not set(training) & set(held_out)


def test_a_verification_set_leaves_all_identities() -> None:
    made = split("faces", 1000, ("lfw.bin",))
    assert (made.num_trainable, made.val) == (1000, ("lfw.bin",))


def test_who_is_in_the_data_cannot_verify() -> None:
    with pytest.raises(VerificationSetError, match="--val must hold people that are not trained on, but got 'faces@9:20'"):
        split("faces@0:10", 10, ("faces@9:20",))


def test_too_few_people_to_hold_out() -> None:
    with pytest.raises(DataError, match=f"{LEAST_IDS} identities to hold some out for verification, but got 12 in 'faces'"):
        split("faces", 12)


def test_a_file_with_such_a_name_is_no_part(tmp_path) -> None:
    path = tmp_path / "faces@0:9"
    path.mkdir()
    assert split(str(path), 100).training_part(10) == f"{path}@0:10"
