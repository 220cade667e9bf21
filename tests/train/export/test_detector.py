"""Detectors that are made here, whose answer is known, and InsightFace's own reading of them."""

from __future__ import annotations

import numpy as np
import pytest

from attfc_train.errors import CheckpointError, UsageError
from attfc_train.evaluate.align import TEMPLATE

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from attfc_train.export.detector import FaceDetector  # noqa: E402
from tests.train.export.detectors import known_detector  # noqa: E402

SIDE = 64


def picture(height=SIDE, width=SIDE):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("outputs", [9, 15])
@pytest.mark.parametrize("batched", [False, True])
def test_a_known_face(tmp_path, outputs, batched):
    box, points = [10.0, 12.0, 50.0, 55.0], TEMPLATE / 2
    path = known_detector(tmp_path / "d.onnx", [(box, points, 0.9)], outputs=outputs, batched=batched, side=SIDE)
    faces = FaceDetector(path).detect(picture())
    assert np.allclose(faces.boxes, [box], atol=1e-4)
    assert np.allclose(faces.landmarks, points[None], atol=1e-4)


@pytest.mark.parametrize(("height", "width", "scale"), [(128, 128, 0.5), (32, 64, 1.0), (200, 100, 0.32)])
def test_places_are_in_the_pictures_own_pixels(tmp_path, height, width, scale):
    box = [4.0, 4.0, 24.0, 26.0]
    path = known_detector(tmp_path / "d.onnx", [(box, TEMPLATE / 4, 0.9)], side=SIDE)
    faces = FaceDetector(path).detect(picture(height, width))
    assert np.allclose(faces.boxes, np.array([box]) / scale, rtol=1e-4)
    assert np.allclose(faces.landmarks, TEMPLATE[None] / 4 / scale, rtol=1e-4)


def test_low_scores_and_overlapping_boxes_go(tmp_path):
    faces = [
        ([10, 10, 40, 40], TEMPLATE / 4, 0.8),
        ([11, 10, 41, 40], TEMPLATE / 5, 0.9),
        ([44, 44, 60, 60], TEMPLATE / 6, 0.7),
        ([2, 44, 20, 60], TEMPLATE / 6, 0.4),
    ]
    found = FaceDetector(known_detector(tmp_path / "d.onnx", faces, side=SIDE)).detect(picture())
    assert np.allclose(found.boxes, [[11, 10, 41, 40], [44, 44, 60, 60]], atol=1e-4)


def test_no_face(tmp_path):
    found = FaceDetector(known_detector(tmp_path / "d.onnx", [], side=SIDE)).detect(picture())
    assert (found.boxes.shape, found.landmarks.shape) == ((0, 4), (0, 5, 2))


def test_what_the_network_sees_is_rgb_scaled_as_insightface_does(tmp_path):
    """Catches BGR, and 127.5 for 128: the landmarks move by what the network sees, in strides of 8."""
    weights = (0.01, 0.02, 0.04)
    points = TEMPLATE / 4
    path = known_detector(tmp_path / "d.onnx", [([10, 10, 40, 40], points, 0.9)], side=SIDE, weights=weights)
    pixels = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    pixels[:] = (255, 150, 10)
    seen = sum(w * (v - 127.5) / 128 for w, v in zip(weights, (255, 150, 10), strict=True))
    assert np.allclose(FaceDetector(path).detect(pixels).landmarks, points + 8 * seen, atol=1e-4)


@pytest.mark.parametrize("outputs", [6, 10])
def test_a_detector_without_landmarks_is_refused(tmp_path, outputs):
    path = known_detector(tmp_path / "d.onnx", [], outputs=outputs, side=SIDE)
    with pytest.raises(UsageError, match="boxes without landmarks"):
        FaceDetector(path)


def test_another_network_is_refused(tmp_path):
    path = known_detector(tmp_path / "d.onnx", [], outputs=1, side=SIDE)
    with pytest.raises(UsageError, match="1 outputs for"):
        FaceDetector(path)


def test_outputs_of_other_shapes_are_refused(tmp_path):
    path = known_detector(tmp_path / "d.onnx", [], side=SIDE, cut=3)
    with pytest.raises(UsageError, match=r"must have the shape \[128, 1\]"):
        FaceDetector(path).detect(picture())


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "d.onnx").write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="must be a readable ONNX file"):
        FaceDetector(tmp_path / "d.onnx")


@pytest.mark.parametrize("outputs", [9, 15])
def test_insightface_reads_the_same(tmp_path, outputs):
    """The package's own RetinaFace on the same file and picture."""
    module = pytest.importorskip("insightface.model_zoo.retinaface")
    faces = [
        ([10, 10, 40, 40], TEMPLATE / 4, 0.8),
        ([12, 10, 43, 41], TEMPLATE / 5, 0.9),
        ([44, 40, 60, 60], TEMPLATE / 6, 0.7),
    ]
    path = known_detector(tmp_path / "d.onnx", faces, outputs=outputs, side=2 * SIDE, weights=(0.02, 0.05, -0.04))
    pixels = picture(100, 150)
    boxes, landmarks = module.RetinaFace(str(path)).detect(pixels[:, :, ::-1])
    found = FaceDetector(path).detect(pixels)
    assert np.allclose(found.boxes, boxes[:, :4], atol=1e-3)
    assert np.allclose(found.landmarks, landmarks, atol=1e-3)
