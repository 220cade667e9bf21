"""What a core decodes of the data that are planned for: measured in a second where they are here, else stated."""

from __future__ import annotations

from attfc_planner.speed.loading import STATED, DecodeRate, stays_decoded
from attfc_train.data.dataset import FaceDataset
from attfc_train.errors import DataError
from attfc_train.profile.profile import DataSettings


def decoding_of(dataset: FaceDataset | None, image_size: int) -> DecodeRate:
    """Return what one core decodes of a data set; nothing is measured where all decoded images stay in memory.

    Args:
        dataset: None: only its size is known.
        image_size: side of the decoded images.
    """
    if dataset is None or stays_decoded(dataset.index.num_images, image_size, DataSettings().cache_bytes):
        return STATED

    from attfc_planner.speed.decode_probe import measured_decoding
    from attfc_train.run.live_line import busy
    from attfc_train.screen import Screen

    screen = Screen(stderr=True)
    try:
        with busy(screen, "Measuring how fast a core decodes these images"):
            rate = measured_decoding(dataset, image_size)
    except DataError as error:
        screen.print(f"Warning: how fast these images decode could not be measured: {error}", soft_wrap=True)
        return STATED
    return STATED if rate is None else rate
