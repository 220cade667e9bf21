"""The real InsightFace package loads an exported model and gives torch's embeddings for real faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attfc_train.data.batch import normalised
from attfc_train.data.decode import decode
from attfc_train.data.source import open_dataset
from attfc_train.export.write import export
from attfc_train.profile.profile import ModelSettings
from tests.train.export.networks import needs, opened

needs("onnx", "onnxruntime", "insightface")

from insightface.model_zoo import get_model  # noqa: E402  # after the skip

NUM_FACES = 32


@pytest.fixture(scope="module")
def crops(faces: Path) -> NDArray[np.uint8]:
    """Real faces, uint8 [N, 112, 112, 3], RGB."""
    dataset = open_dataset(str(faces / "lfw_train"))
    return np.stack([decode(dataset.encoded(place), 112) for place in range(0, NUM_FACES * 50, 50)])


@pytest.mark.parametrize(("backbone", "precision"), [("mbf", "fp32"), ("tiny", "fp32"), ("tiny", "fp16")])
def test_insightface_gives_the_embeddings_of_torch(
    backbone: str, precision: str, crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Catches BGR, another scale or mean, and a file that the package takes for landmarks or for no model at all."""
    images = normalised(torch.from_numpy(crops).permute(0, 3, 1, 2), torch.zeros(NUM_FACES, dtype=torch.bool))
    encoder = opened(ModelSettings(backbone=backbone, embedding_size=512), images)
    path = tmp_path / "model.onnx"
    export(encoder, path, precision, images)  # type: ignore[arg-type]  # parametrised
    model = get_model(str(path), providers=["CPUExecutionProvider"])
    assert model.taskname == "recognition"
    assert (model.input_mean, model.input_std) == (127.5, 127.5)
    assert model.input_size == (112, 112)
    with torch.inference_mode():
        wanted = encoder.network(images).double()
    bgr = [np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops]  # the package wants OpenCV's order
    found = torch.from_numpy(model.get_feat(bgr)).double()
    assert found.shape == (NUM_FACES, 512)
    least = 0.99999 if precision == "fp32" else 0.999
    assert float(torch.cosine_similarity(found, wanted).min()) >= least
    alone = torch.from_numpy(model.get_feat(bgr[7])).double()
    assert float(torch.cosine_similarity(alone, wanted[7:8]).min()) >= least
    if precision == "fp32":
        swapped = torch.from_numpy(model.get_feat([crop[:, :, ::-1].copy() for crop in bgr])).double()
        assert float(torch.cosine_similarity(swapped, wanted).min()) < least, "the bar must tell RGB from BGR"
