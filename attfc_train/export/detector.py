"""A face detector in an ONNX file that the user names, read as InsightFace's package reads SCRFD and RetinaFace.

Such a network has no anchor boxes but centers: every `stride` pixels one or two. For each it gives a score, the distances from
the center to the sides of the box, and from the center to five landmarks, in strides. Outputs come by kind (scores, boxes,
landmarks), and within a kind by stride: 3 x 3 of them, with strides 8, 16, 32 and two centers a place, or 3 x 5 with strides to
128 and one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from attfc_train.errors import CheckpointError, UsageError

Floats = NDArray[np.float32]

MIN_SCORE: Final = 0.5
MOST_OVERLAP: Final = 0.4
"""Share of the union of two boxes above which the one of the lower score goes."""
FREE_SIDE: Final = 640
"""Side of the picture for a network that takes any size."""
_MEAN: Final = 127.5
_SCALE: Final = 128.0
_STRIDES: Final = {9: (8, 16, 32), 15: (8, 16, 32, 64, 128)}
"""By number of outputs."""
_CENTERS: Final = {9: 2, 15: 1}
"""Centers a place."""
_WITHOUT_LANDMARKS: Final = (6, 10)
_POINTS: Final = 5
_QUIET: Final = 3


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces in a picture, in its pixels, best score first."""

    boxes: Floats
    """float32 [n, 4]: left, top, right, bottom."""
    landmarks: Floats
    """float32 [n, 5, 2]: x and y of the eyes, the nose and the corners of the mouth, left ones first."""


class FaceDetector:
    """A detector; `detect` may be called by several threads at a time.

    Raises:
        CheckpointError: ONNX Runtime does not take the file.
        UsageError: it is no detector of the kind described above, or gives no landmarks.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # pictures are shared out among threads already
        options.log_severity_level = _QUIET
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common class that is public
            got = " ".join(str(error).split())[:160]
            raise CheckpointError(f"--detector '{path}' must be a readable ONNX file", got, "Check the file.") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        _check_kind(path, len(self._outputs), self._session.get_inputs())
        data = self._session.get_inputs()[0]
        self._input: str = data.name
        fixed = [side if isinstance(side, int) and side > 0 else FREE_SIDE for side in data.shape[2:]]
        self._height, self._width = fixed

    def detect(self, pixels: NDArray[np.uint8]) -> Faces:
        """Return the faces in a picture, uint8 [H, W, 3], RGB.

        Raises:
            UsageError: the outputs are not of the shapes that such a network has.
        """
        picture, scale = self._fitted(pixels)
        outputs = self._session.run(self._outputs, {self._input: picture})
        scores, boxes, landmarks = self._read(outputs)
        found = np.flatnonzero(scores >= MIN_SCORE)
        order = found[np.argsort(-scores[found], kind="stable")]
        kept = order[_apart(boxes[order])]
        return Faces(boxes[kept] / scale, landmarks[kept] / scale)

    def _fitted(self, pixels: NDArray[np.uint8]) -> tuple[Floats, float]:
        """Return the picture as the network wants it, at the top left of a black one, and by how much it was enlarged."""
        height, width = pixels.shape[:2]
        if height * self._width > width * self._height:
            size = self._height, max(1, int(self._height * width / height))
        else:
            size = max(1, int(self._width * height / width)), self._width
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
        resized = torch.nn.functional.interpolate(image, size=size, mode="bilinear", align_corners=False)
        page = torch.zeros(1, 3, self._height, self._width)
        page[:, :, : size[0], : size[1]] = resized.round()
        normalised: Floats = ((page - _MEAN) / _SCALE).numpy()
        return normalised, size[0] / height

    def _read(self, outputs: list[Any]) -> tuple[Floats, Floats, Floats]:
        """Return all scores [n], boxes [n, 4] and landmarks [n, 5, 2], in pixels of the network's picture."""
        strides = _STRIDES[len(outputs)]
        scores, boxes, landmarks = [], [], []
        for place, stride in enumerate(strides):
            centers = _centers(self._height // stride, self._width // stride, stride, _CENTERS[len(outputs)])
            score, distance, offset = (
                self._checked(outputs[place + kind * len(strides)], len(centers), width)
                for kind, width in enumerate((1, 4, 2 * _POINTS))
            )
            scores.append(score[:, 0])
            near, far = distance[:, :2] * stride, distance[:, 2:] * stride
            boxes.append(np.concatenate([centers - near, centers + far], axis=1))
            landmarks.append(centers[:, None] + offset.reshape(-1, _POINTS, 2) * stride)
        return np.concatenate(scores), np.concatenate(boxes), np.concatenate(landmarks)

    def _checked(self, output: Any, count: int, width: int) -> Floats:
        """Return an output as float32 [count, width]; a batch of one in front of it is taken away."""
        values = np.asarray(output, dtype=np.float32)
        values = values[0] if values.ndim == 3 and len(values) == 1 else values
        if values.shape != (count, width):
            rule = f"an output of --detector '{self._path}' must have the shape [{count}, {width}]"
            raise UsageError(rule, f"{list(values.shape)}", "Give a detector as InsightFace's package reads it.")
        return values


def _check_kind(path: Path, outputs: int, inputs: list[Any]) -> None:
    rule = f"--detector '{path}' must give scores, boxes and landmarks in 9 or 15 outputs, as SCRFD and RetinaFace do"
    if outputs in _WITHOUT_LANDMARKS:
        raise UsageError(rule, f"{outputs}: boxes without landmarks", "Give one with landmarks (its name has 'kps').")
    if outputs not in _STRIDES or len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = ", ".join(str(list(each.shape)) for each in inputs)
        raise UsageError(rule, f"{outputs} outputs for {shapes}", "Give a detector as InsightFace's package reads it.")


def _centers(rows: int, columns: int, stride: int, repeats: int) -> Floats:
    """Return x and y of the centers, float32 [rows x columns x repeats, 2]."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32) * stride
    return np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeats, axis=0)


def _apart(boxes: Floats) -> list[int]:
    """Return the places of the boxes that overlap with no better one that is kept; the best come first."""
    # A box of whole pixels from x1 to x2 is x2 - x1 + 1 wide, as the package counts.
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    kept: list[int] = []
    left = np.arange(len(boxes))
    while left.size:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        common = np.maximum(0, high - low + 1).prod(axis=1)
        left = left[common <= MOST_OVERLAP * (areas[best] + areas[left] - common)]
    return kept
