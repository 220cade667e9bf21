"""Labels that are written as text: whole numbers, or names where none of them is a number."""

from __future__ import annotations

import re
from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.report import DataReport

Int64s = NDArray[np.int64]

NEGATIVE: Final = "images passed over whose label is negative"
NO_NUMBER: Final = "images passed over whose label is no whole number, as others are"
_NUMBER: Final = re.compile(rb"[+-]?\d{1,18}")
NONE: Final = -1
"""The label of an image that is to be passed over."""


class LabelTexts:
    """Labels in the order in which they are met; of each text there is one object, however many images have it."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._labels = array("i")

    def append(self, text: bytes) -> None:
        """Add the label of the next image."""
        self._labels.append(self.place(text))

    def place(self, text: bytes) -> int:
        """Return the number that stands for a text until `numbers`."""
        return self._places.setdefault(bytes(text.strip()), len(self._places))

    def numbers(self, report: DataReport, places: Int64s | None = None) -> Int64s:
        """Return the labels, int64 [N]; `NONE` for those that are none.

        All are numbers, or none is: then the texts are names, numbered in the order of their bytes. Where some are numbers, the
        others are mistakes.

        Args:
            report: receives how many are none, and that there are names.
            places: int64 [N], results of `place`; None: those of `append`.
        """
        used = np.frombuffer(self._labels, dtype=np.intc) if places is None else places
        texts = list(self._places)
        values = np.array([int(text) if _NUMBER.fullmatch(text) else NONE for text in texts], dtype=np.int64)
        are_numbers = np.array([_NUMBER.fullmatch(text) is not None for text in texts], dtype=np.bool_)
        if texts and not are_numbers.any():
            return self._ranks(texts, report)[used]
        for kind, mistaken in ((NO_NUMBER, ~are_numbers), (NEGATIVE, are_numbers & (values < 0))):
            wrong = mistaken[used]
            first = texts[int(used[np.argmax(wrong)])] if wrong.any() else b""
            report.count(kind, int(wrong.sum()), f"the label '{first[:80].decode(errors='replace')}'")
        labels: Int64s = np.maximum(values, NONE)[used]
        return labels

    def _ranks(self, texts: list[bytes], report: DataReport) -> Int64s:
        """Return the rank of each text; an empty one is no name."""
        names = sorted(text for text in texts if text)
        rank = {name: place for place, name in enumerate(names)}
        first = names[0][:80].decode(errors="replace") if names else ""
        report.say(f"labels are names, numbered from 0 in the order of their bytes: the first is '{first}'")
        return np.array([rank.get(text, NONE) for text in texts], dtype=np.int64)
