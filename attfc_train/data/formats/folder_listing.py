"""Lists the images of a folder per identity, and counts everything else that lies there."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from attfc_train.data.decode import EXTENSIONS
from attfc_train.data.reading import unreadable
from attfc_train.data.report import DataReport

_ENDINGS: Final = frozenset(extension.encode() for extension in EXTENSIONS)
_HIDDEN: Final = "hidden files and folders passed over"
_SPECIAL: Final = "pipes, devices and links to nowhere passed over"
_LOOP: Final = "folders passed over that lie above, or were read already by another way (links)"
STRAY: Final = "images passed over that lie in no identity's folder"
_TWICE: Final = "identities passed over that are another one by a second name (links)"
_EMPTY: Final = "folders passed over that hold no image"
_NESTED: Final = "images in folders within an identity's folder, which count as that identity's"
_SHOWN_ENDINGS: Final = 6

Place = tuple[int, int]
"""Device and number of a folder, by whatever path it is reached."""


@dataclass(slots=True)
class Listing:
    """Identities and images in the order of their names' bytes."""

    folders: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    """Images of each folder."""
    files: list[bytes] = field(default_factory=list)
    """Paths of all images, each from its identity's folder."""
    stray: list[bytes] = field(default_factory=list)
    """Images beside the folders."""
    num_nested: int = 0
    """Images that do not lie in the identity's folder itself."""


def list_identities(root: Path, report: DataReport) -> Listing:
    """Return the identities in `root` and their images.

    Args:
        report: receives what is passed over, and images in deeper folders; nothing where the listing fails.

    Raises:
        UnreadableError: a folder cannot be listed.
    """
    found = DataReport()
    walk = _Walk(os.fsencode(root), found)
    listing = Listing()
    folders, listing.stray = walk.entries(b"")
    found.count(STRAY, len(listing.stray), os.fsdecode(b"".join(listing.stray[:1])))
    for folder in walk.each_once(folders):
        images = walk.images_below(folder)
        if images:
            listing.folders.append(folder)
            listing.counts.append(len(images))
            listing.files += images
        elif images is not None:
            found.count(_EMPTY, 1, os.fsdecode(folder))
    listing.num_nested = walk.num_nested
    walk.report_endings()
    report.merge(found)
    return listing


class _Walk:
    """A walk through a data set's folder, which follows links but enters no folder of an identity twice."""

    def __init__(self, root: bytes, report: DataReport) -> None:
        self._root = root
        self._report = report
        real_root = Path(os.fsdecode(os.path.realpath(root)))
        self._above = {_place(os.fsencode(folder)) for folder in (real_root, *real_root.parents)}
        self._endings: Counter[str] = Counter()
        self._example = b""
        self.num_nested = 0

    def each_once(self, folders: list[bytes]) -> list[bytes]:
        """Return the identities' folders but for links to another one: one person would be two classes."""
        links = [folder for folder in folders if os.path.islink(os.path.join(self._root, folder))]
        real = {os.path.join(os.path.realpath(self._root), folder) for folder in set(folders) - set(links)}
        again = []
        for folder in links:
            target = os.path.realpath(os.path.join(self._root, folder))
            if target in real:
                again.append(folder)
            real.add(target)
        self._report.count(_TWICE, len(again), os.fsdecode(b"".join(again[:1])))
        return [folder for folder in folders if folder not in set(again)]

    def images_below(self, folder: bytes) -> list[bytes] | None:
        """Return the sorted paths, from `folder` on, of all images in it and in the folders in it; None: it leads back."""
        inner_folders, images = self.entries(folder)
        if not inner_folders:
            return images
        own = _place(os.path.join(self._root, folder))
        if own in self._above:
            self._report.count(_LOOP, 1, os.fsdecode(folder))
            return None
        seen = self._above | {own}
        waiting = [os.path.join(folder, name) for name in inner_folders]
        while waiting:
            inner = waiting.pop()
            place = _place(os.path.join(self._root, inner))
            if place in seen:
                self._report.count(_LOOP, 1, os.fsdecode(inner))
                continue
            seen.add(place)
            inner_folders, files = self.entries(inner)
            waiting += [os.path.join(inner, name) for name in inner_folders]
            images += [os.path.join(inner, name)[len(folder) + 1 :] for name in files]
            self._report.count(_NESTED, len(files), os.fsdecode(os.path.join(inner, *files[:1])))
            self.num_nested += len(files)
        return sorted(images)

    def entries(self, folder: bytes) -> tuple[list[bytes], list[bytes]]:
        """Return the sorted names of the folders and of the images in one folder of the data set; count what else is there."""
        folders: list[bytes] = []
        images: list[bytes] = []
        path = os.path.join(self._root, folder)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    self._sort_in(entry, folder, folders, images)
        except OSError as error:
            raise unreadable(Path(os.fsdecode(path)), error) from error
        return sorted(folders), sorted(images)

    def _sort_in(self, entry: os.DirEntry[bytes], folder: bytes, folders: list[bytes], images: list[bytes]) -> None:
        name = entry.name
        if name.startswith(b"."):
            self._report.count(_HIDDEN, 1, os.fsdecode(os.path.join(folder, name)))
        elif _is(entry, "is_dir"):
            folders.append(name)
        elif not _is(entry, "is_file"):
            self._report.count(_SPECIAL, 1, os.fsdecode(os.path.join(folder, name)))
        elif (ending := os.path.splitext(name)[1].lower()) in _ENDINGS:
            images.append(name)
        else:
            self._endings[os.fsdecode(ending) or "none"] += 1
            self._example = self._example or os.path.join(folder, name)

    def report_endings(self) -> None:
        """Put the files with other endings into the report."""
        kinds = ", ".join(f"{ending} {count:,}" for ending, count in self._endings.most_common(_SHOWN_ENDINGS))
        more = ", ..." if len(self._endings) > _SHOWN_ENDINGS else ""
        kind = f"files passed over with other endings than {', '.join(EXTENSIONS)} ({kinds}{more})"
        self._report.count(kind, self._endings.total(), os.fsdecode(self._example))


def _is(entry: os.DirEntry[bytes], kind: str) -> bool:
    """Return ``entry.is_dir()`` or ``entry.is_file()``, links followed; False for a link that only leads to links."""
    try:
        return bool(getattr(entry, kind)())
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _place(folder: bytes) -> Place:
    """Return what tells a folder from all others."""
    try:
        status = os.stat(folder)
    except OSError as error:
        raise unreadable(Path(os.fsdecode(folder)), error) from error
    return status.st_dev, status.st_ino
