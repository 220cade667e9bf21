"""Lists the images of a folder per identity, and counts everything else that lies there.

Identities are the folders in the root, or those a given number of levels deeper, or every folder that images lie in.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from attfc_train.data.decode import EXTENSIONS
from attfc_train.data.formats.names import Names
from attfc_train.data.progress import tell
from attfc_train.data.reading import unreadable
from attfc_train.data.report import DataReport

_ENDINGS: Final = frozenset(extension.encode() for extension in EXTENSIONS)
_HIDDEN: Final = "hidden files and folders passed over"
_SPECIAL: Final = "pipes, devices and links to nowhere passed over"
_LOOP: Final = "folders passed over that lie above, or were read already by another way (links)"
STRAY: Final = "images passed over that lie in no identity's folder"
_TWICE: Final = "identities passed over that are another one by a second name (links)"
_EMPTY: Final = "folders passed over that hold no image"
_NESTED: Final = (
    "images in folders within an identity's folder, which count as that identity's (FOLDER/* makes these the identities)"
)
_SHOWN_ENDINGS: Final = 6
_TOLD_EVERY: Final = 1024
"""Folders."""
EVERY: Final = 0
"""In place of a number of levels: every folder that images lie in is an identity."""

FoldersAndImages = Iterator[tuple[bytes, list[bytes]]]
"""Identities' folders from the root on, and their images from the folder on, sorted."""
Place = tuple[int, int]
"""Device and number of a folder, by whatever path it is reached."""


@dataclass(slots=True)
class Listing:
    """Identities and images in the order of their names' bytes."""

    folders: list[bytes] = field(default_factory=list)
    """Paths of the identities' folders from the root on."""
    counts: list[int] = field(default_factory=list)
    """Images of each folder."""
    files: Names = field(default_factory=Names)
    """Paths of all images, each from its identity's folder."""
    stray: list[bytes] = field(default_factory=list)
    """Images beside the folders."""
    num_nested: int = 0
    """Images that do not lie in the identity's folder itself."""
    times: dict[bytes, int] = field(default_factory=dict)
    """When every folder that was looked into was changed, in nanoseconds, as it was before the look."""


def list_identities(root: Path, report: DataReport, levels: int = 1) -> Listing:
    """Return the identities in `root` and their images.

    Args:
        levels: how deep the identities' folders lie: 1 in `root` itself; or `EVERY`.
        report: receives what is passed over, and images in deeper folders; nothing where the listing fails.

    Raises:
        UnreadableError: a folder cannot be listed.
    """
    found = DataReport()
    walk = _Walk(os.fsencode(root), found)
    listing = Listing(times=walk.times)
    each, listing.stray = walk.every_folder() if levels == EVERY else walk.folders_at(levels)
    found.count(STRAY, len(listing.stray), os.fsdecode(b"".join(listing.stray[:1])))

    def images_of_each() -> Iterator[bytes]:
        for folder, images in each:
            listing.folders.append(folder)
            listing.counts.append(len(images))
            yield from images

    listing.files = Names(images_of_each())
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
        self.times: dict[bytes, int] = {}

    def folders_at(self, levels: int) -> tuple[FoldersAndImages, list[bytes]]:
        """Return the folders so many levels deep with all images below them, in order, and the images above them."""
        folders, stray = self.entries(b"")
        seen = set(self._above)
        for _ in range(levels - 1):
            above = self._each_place_once(self.each_once(folders), seen)
            folders = []
            for folder in above:
                inner, images = self.entries(folder)
                folders += [os.path.join(folder, name) for name in inner]
                stray += [os.path.join(folder, name) for name in images]
                if not inner and not images:
                    self._report.count(_EMPTY, 1, os.fsdecode(folder))
        return self._with_images_below(self.each_once(sorted(folders))), stray

    def _with_images_below(self, folders: list[bytes]) -> FoldersAndImages:
        for place, folder in enumerate(folders):
            if place % _TOLD_EVERY == 0:
                tell("looking through the folders", place, len(folders))
            images = self.images_below(folder)
            if images:
                yield folder, images
            elif images is not None:
                self._report.count(_EMPTY, 1, os.fsdecode(folder))

    def every_folder(self) -> tuple[FoldersAndImages, list[bytes]]:
        """Return the folders that images lie in, however deep, with these, in order, and the images in the root."""
        folders, stray = self.entries(b"")
        waiting = folders
        seen = set(self._above)
        images_of: dict[bytes, bytes] = {}
        """Names with slashes between them: an object a folder, not one an image."""
        while waiting:
            deeper: list[bytes] = []
            for folder in self._each_place_once(self.each_once(waiting), seen):
                inner, images = self.entries(folder)
                deeper += [os.path.join(folder, name) for name in inner]
                if images:
                    images_of[folder] = b"/".join(images)
                elif not inner:
                    self._report.count(_EMPTY, 1, os.fsdecode(folder))
            waiting = deeper
        return ((folder, images_of[folder].split(b"/")) for folder in sorted(images_of)), stray

    def _each_place_once(self, folders: list[bytes], seen: set[Place]) -> list[bytes]:
        """Return folders but for those that were seen, which they are from now on."""
        new = []
        for folder in folders:
            place = _place(os.path.join(self._root, folder))
            if place in seen:
                self._report.count(_LOOP, 1, os.fsdecode(folder))
            else:
                seen.add(place)
                new.append(folder)
        return new

    def each_once(self, folders: list[bytes]) -> list[bytes]:
        """Return the identities' folders but for links to another one: one person would be two classes."""
        links = [folder for folder in folders if os.path.islink(os.path.join(self._root, folder))]
        if not links:
            return folders
        real_above = {above: os.path.realpath(os.path.join(self._root, above)) for above in set(map(os.path.dirname, folders))}
        others = set(folders) - set(links)
        real = {os.path.join(real_above[os.path.dirname(folder)], os.path.basename(folder)) for folder in others}
        again = []
        for folder in links:
            target = os.path.realpath(os.path.join(self._root, folder))
            if target in real:
                again.append(folder)
            real.add(target)
        self._report.count(_TWICE, len(again), os.fsdecode(b"".join(again[:1])))
        left_out = set(again)
        return [folder for folder in folders if folder not in left_out]

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
            self.times[folder] = os.stat(path).st_mtime_ns  # before the look: a change during it is one after it
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
