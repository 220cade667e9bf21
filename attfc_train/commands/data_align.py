"""``attfc-train data align``: face crops by five landmarks, as a folder per identity or as RecordIO."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attfc_train.commands.data_convert import remove_left, stopped_by_signals
from attfc_train.commands.data_survey import progress
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import Pixels, decode_whole
from attfc_train.data.encode import jpeg
from attfc_train.data.formats.below import is_relabelled, specs_below
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.part import part_of_spec
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import UnreadableError, existing_path, persistently
from attfc_train.data.report import DataReport
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from attfc_train.evaluate.align import aligned
from attfc_train.evaluate.landmarks import Landmarks, Points, boxes_around, chosen_face, normal_name, strange
from attfc_train.export.model_file import require
from attfc_train.files import write_folder_atomically
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen

_CHUNK: Final = 256
_NOT_FOUND: Final = "images without a face, left out"
_UNDECODABLE: Final = "images that cannot be decoded, left out"
_SEVERAL: Final = "images of several faces, of which the one that is large and near the middle is taken"
_STRANGE: Final = "images left out whose landmarks make no face"

FindFaces: TypeAlias = Callable[[int, Pixels], tuple[Points, NDArray[np.floating]]]
"""Returns landmarks [n, 5, 2] and boxes [n, 4] of the faces at a position of the data set, whose pixels are given."""


@dataclass(frozen=True, slots=True)
class AlignOptions:
    """The options of the command."""

    output: Path
    landmarks: Path | None = None
    detector: Path | None = None
    size: int = 112


@dataclass(frozen=True, slots=True)
class _Found:
    """The face of an image, or why there is none."""

    face: Points | None
    kind: str = ""
    """What is to be counted; may be said of a face that was found, too."""
    detail: str = ""


def align(spec: str, options: AlignOptions, console: Screen) -> None:
    """Write the aligned faces of a data set.

    Raises:
        UsageError: the options contradict each other, or the detector is of another kind.
        DataError: the data set or the landmarks cannot be read, or there is no face at all.
        StorageError: the output cannot be written.
    """
    if (options.landmarks is None) == (options.detector is None):
        given = "both" if options.landmarks else "neither"
        remedy = "Give --landmarks points.csv, or --detector model.onnx."
        raise UsageError("faces are found by one of --landmarks and --detector", given, remedy)
    _check_output(options.output)
    names = _Names(spec)
    with busy(console, "Opening the data set"):
        dataset = open_dataset(spec)
        table = None if options.landmarks is None else Landmarks(options.landmarks)
    find = _by_detector(options.detector) if table is None else _by_file(table, dataset, names)
    report = DataReport(dataset.name)
    faces = _all_faces(dataset, find, report, console)
    if table is not None and table.num_unused:
        report.say(f"{options.landmarks} has {table.num_unused:,} of {table.num_faces:,} faces for images that are not here")
    positions = dataset.index.members[~np.isnan(faces[dataset.index.members, 0, 0])].astype(np.int64)
    if not positions.size:
        example = f"an image's name here is '{names.of(dataset, 0)}'"
        got = f"none in {dataset.index.num_images:,} images ({'; '.join([*report.lines(), example])})"
        raise DataError(f"'{dataset.name}' must show faces", got, "Check the names and numbers of --landmarks, or --detector.")
    _write(dataset, positions, faces, names, options, console)
    for line in [*dataset.index.report.lines(), *report.lines()]:
        console.print(line, soft_wrap=True)
    _say_end(dataset, positions, options, console)


def _say_end(dataset: FaceDataset, positions: NDArray[np.int64], options: AlignOptions, console: Screen) -> None:
    people = np.unique(dataset.index.labels[positions]).size
    lost = dataset.index.num_ids - people
    without = f"; {lost:,} identities without any face are left out" if lost else ""
    what = f"{positions.size:,} aligned images of {people:,} identities, {options.size} x {options.size}{without}"
    console.print(f"Wrote {options.output}: {what}.", soft_wrap=True)
    console.print(f"Look at them: attfc-train data info {options.output} -o montage.png", soft_wrap=True)


class _Names:
    """Names of images: the path from the data set's folder on, or the key in a RecordIO file."""

    def __init__(self, spec: str) -> None:
        images = list(specs_below(spec))[-1]
        path = existing_path(images) or existing_path(part_of_spec(images)[0])
        self._is_relabelled = is_relabelled(spec)
        self._folder = "" if path is None else normal_name(str(path)).rstrip("/") + "/"

    def of(self, dataset: FaceDataset, position: int) -> str:
        """Return the name of an image."""
        where = normal_name(dataset.locate(position))
        if self._folder and where.startswith(self._folder):
            return where[len(self._folder) :]
        return where.rpartition(" ")[2]

    def output(self, dataset: FaceDataset, position: int) -> Path:
        """Return the path of the aligned image from the output's folder on: in a folder for each identity."""
        name = Path(self.of(dataset, position))
        if self._is_relabelled:  # the folder in its path would be another identity's
            name = Path(str(position))
        if len(name.parts) < 2:
            name = Path(f"{dataset.index.original_labels[dataset.index.labels[position]]:08d}", f"{name}.jpg")
        return name if name.suffix.lower() in (".jpg", ".jpeg") else name.with_name(f"{name.name}.jpg")


def _by_file(table: Landmarks, dataset: FaceDataset, names: _Names) -> FindFaces:
    def find(position: int, _picture: Pixels) -> tuple[Points, NDArray[np.floating]]:
        faces = table.of(names.of(dataset, position))
        return faces, boxes_around(faces) if len(faces) else np.empty((0, 4))

    return find


def _by_detector(path: Path | None) -> FindFaces:
    require("onnxruntime")
    from attfc_train.export.detector import FaceDetector

    assert path is not None
    detector = FaceDetector(path)

    def find(_position: int, pixels: Pixels) -> tuple[Points, NDArray[np.floating]]:
        faces = detector.detect(pixels)
        return faces.landmarks, faces.boxes

    return find


def _all_faces(dataset: FaceDataset, find: FindFaces, report: DataReport, console: Screen) -> Points:
    """Return the landmarks of every image, float32 [N, 5, 2]; not a number where there is no face."""
    num_images = dataset.index.num_images
    faces = np.full((num_images, 5, 2), np.nan, dtype=np.float32)
    with progress(console, num_images, "finding faces") as advance, DecodePool() as pool:
        for start in range(0, num_images, _CHUNK):
            part = range(start, min(start + _CHUNK, num_images))
            for position, found in zip(part, pool.map(lambda place: _found(dataset, find, place), part), strict=True):
                if found.face is not None:
                    faces[position] = found.face
                if found.kind:
                    report.count(found.kind, 1, dataset.locate(position) + found.detail)
            advance(len(part))
    return faces


def _found(dataset: FaceDataset, find: FindFaces, position: int) -> _Found:
    try:
        pixels = _pixels(dataset, position)
    except UnreadableError:
        raise
    except DataError as error:
        return _Found(None, _UNDECODABLE, f" ({error.got})")
    faces, boxes = find(position, pixels)
    if not len(faces):
        return _Found(None, _NOT_FOUND)
    face = faces[chosen_face(boxes, *pixels.shape[:2])]
    trouble = strange(face)
    if trouble:
        return _Found(None, _STRANGE, f" ({trouble})")
    return _Found(face, _SEVERAL if len(faces) > 1 else "")


def _pixels(dataset: FaceDataset, position: int) -> Pixels:
    encoded = persistently(lambda: dataset.encoded(position))
    return encoded if isinstance(encoded, np.ndarray) else decode_whole(encoded)


def _write(
    dataset: FaceDataset,
    positions: NDArray[np.int64],
    faces: Points,
    names: _Names,
    options: AlignOptions,
    console: Screen,
) -> None:
    """Write the crops; a folder or file of the output's name appears when all are there."""

    def crop(position: int) -> bytes:
        return jpeg(aligned(_pixels(dataset, position), faces[position], options.size))

    def crops(advance: Callable[[int], None]) -> Iterator[bytes]:
        with DecodePool() as pool:
            for start in range(0, positions.size, _CHUNK):
                part = positions[start : start + _CHUNK].tolist()
                yield from pool.map(crop, part)
                advance(len(part))

    with stopped_by_signals(), progress(console, positions.size, "writing") as advance:
        if options.output.suffix.lower() == ".rec":
            labels = np.unique(dataset.index.labels[positions], return_inverse=True)[1]
            write_recordio(options.output, labels, crops(advance), side=options.size)
        else:
            paths = (names.output(dataset, position) for position in positions.tolist())
            _write_folder(options.output, paths, crops(advance))


def _write_folder(output: Path, paths: Iterator[Path], crops: Iterator[bytes]) -> None:
    def fill(root: Path) -> None:
        for path, content in zip(paths, crops, strict=True):
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    write_folder_atomically(output, fill)


def _check_output(output: Path) -> None:
    """Refuse what is there already."""
    is_records = output.suffix.lower() == ".rec"
    written = [output, output.with_suffix(".idx"), output.with_name("property")] if is_records else [output]
    for path in written:
        remove_left(path)
        if path.is_dir() and not is_records and not any(path.iterdir()):
            continue
        if path.exists():
            rule = "--output must be a new folder, or a new .rec file in a folder without others"
            raise UsageError(rule, f"'{path}', which exists", "Choose another name, or remove it.")
