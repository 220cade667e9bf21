"""Folders of images that nobody has sorted by person: to find identities in, and for an index over them; not to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attfc_train.data.formats.folder import read_image
from attfc_train.data.formats.folder_listing import STRAY, list_identities
from attfc_train.data.formats.names import Names
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError


class LooseFaces:
    """A `FaceDataset` over ``root/image.jpg`` in the order of the names' bytes, in which each image is an identity of its own.

    `attfc_train.data.source.open_source` opens one, where `open_dataset` refuses to.
    """

    def __init__(self, root: Path) -> None:
        """List `root`; what is passed over is in the index's report.

        Raises:
            UnreadableError: the folder cannot be read.
            DataError: it holds fewer than two images.
        """
        self._root = root
        listed = DataReport(self.name)
        names = list_identities(root, listed).stray
        report = DataReport(self.name)
        for remark in listed.remarks:
            if remark.kind != STRAY:  # these are the images themselves
                report.count(remark.kind, remark.count, remark.example)
        if len(names) < 2:
            raise DataError(f"'{self.name}' must hold at least 2 images", f"{len(names)}", "Check the path.")
        self._names = Names(names)
        self._index = IdentityIndex.from_labels(np.arange(len(names)), report, (self._names.block, self._names.ends))

    @property
    def name(self) -> str:
        """The folder."""
        return shown(str(self._root))

    @property
    def index(self) -> IdentityIndex:
        """An identity for each image: nobody knows more."""
        return self._index

    def encoded(self, position: int) -> bytes:
        """Return the file bytes of one image; see `read_image` for what it raises."""
        return read_image(self._root / self._names[position])

    def locate(self, position: int) -> str:
        """Return the file's path, on one line."""
        return shown(str(self._root / self._names[position]))
