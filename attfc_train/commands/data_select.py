"""Some images of a data set as a data set of their own: an index over it where nothing need be copied, else any format."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfc_train.commands.data_convert import ConvertOptions, check_output, remove_left, stopped_by_signals, write_images
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.subset import check_new_subset, write_subset
from attfc_train.data.formats.subset_file import ENDING
from attfc_train.errors import UsageError
from attfc_train.screen import Screen


def is_index(options: ConvertOptions) -> bool:
    """Return whether the output is an index over the data set, a `.subset` file."""
    return options.output.suffix.lower() == ENDING


def check_selection_output(source: str, options: ConvertOptions, option: str = "--output") -> None:
    """Check that an output is new, and of a format that can be written.

    Args:
        option: the name under which the user gave it.

    Raises:
        UsageError: it is not.
    """
    try:
        if not is_index(options):
            check_output(options)
            return
        path = options.output.expanduser()
        check_new_subset(path, source)
        remove_left(path)
    except UsageError as error:
        raise UsageError(error.rule.replace("--output", option), error.got, error.remedy) from error


def write_selection(
    source: str,
    dataset: FaceDataset,
    order: NDArray[np.signedinteger[Any]],
    labels: NDArray[np.int64] | None,
    options: ConvertOptions,
    made: str,
    console: Screen,
) -> None:
    """Write some images of a data set, under labels of their own.

    Args:
        source: the spec of `dataset`.
        order: positions in it, an identity's together.
        labels: int64, of the images in this order, ascending; None, for an index alone: those that they have.
        made: the command line, which an index keeps.

    Raises:
        UsageError: the format cannot hold the labels.
        DataError: an image cannot be read.
        StorageError: the output cannot be written.
        Interrupted: a signal came; nothing is left behind.
    """
    if not is_index(options):
        assert labels is not None, "a copy has labels of its own"
        write_images(dataset, order, labels, options, console)
        return
    with stopped_by_signals():
        write_subset(options.output.expanduser(), source, dataset, order, labels, made)
