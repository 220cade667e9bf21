"""The data set of a run: the one that it was planned for, and the same whenever it is resumed."""

from __future__ import annotations

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from attfc_train.profile.file import resolve_profile
from attfc_train.profile.profile import TrainProfile


def opened_data(profile: TrainProfile) -> FaceDataset:
    """Open the profile's data set.

    Raises:
        UsageError: the profile names none.
        DataError: it has another number of identities than the profile.
    """
    if profile.data.path is None:
        raise UsageError(
            "--data must name the training data", "none", "Example: --data faces/train.rec or --data synthetic:500x20."
        )
    dataset = open_dataset(profile.data.path)
    planned = profile.data.num_ids
    num_ids = dataset.index.num_ids
    if planned is not None and planned != num_ids:
        raise DataError(
            f"'{profile.data.path}' must have the {planned} identities of the profile (data.num_ids, --ids)",
            f"{num_ids}",
            "Plan again with --data, or give the data set that the profile was made for.",
        )
    return dataset


def same_data(profile: TrainProfile) -> FaceDataset:
    """Open the data of a run that is resumed.

    Raises:
        DataError: they are not those that it was started with.
    """
    dataset = opened_data(profile)
    num_images = dataset.index.num_images
    num_before = profile.data.num_images
    if num_images != num_before:
        got = f"{num_images}; the run was started with {num_before}"
        raise DataError(f"'{dataset.name}' must have the same images as before", got, "Restore the data, or start a new run.")
    _check_labels(profile, dataset)
    return dataset


def resolved_for(profile: TrainProfile, dataset: FaceDataset) -> TrainProfile:
    """Return the profile with the numbers of the data set, and the digest by which it is recognised."""
    resolved = resolve_profile(profile, dataset.index.num_ids, dataset.index.num_images)
    data = resolved.data.model_copy(update={"labels_digest": dataset.index.digest()})
    return resolved.model_copy(update={"data": data})


def _check_labels(profile: TrainProfile, dataset: FaceDataset) -> None:
    """Refuse to go on with other labels, or the same in another order: to the head they would be other people.

    Raises:
        DataError: the digests differ.
    """
    digest = dataset.index.digest()
    if profile.data.labels_digest not in (None, digest):  # None: an earlier version started the run
        rule = f"'{dataset.name}' must have the labels with which the run was started, in the same order"
        got = f"others (digest {digest} in place of {profile.data.labels_digest})"
        raise DataError(rule, got, "Restore the data and its .idx file, or start a new run.")
