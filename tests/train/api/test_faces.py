"""What `import attfc_train` gives for faces: embeddings and their cosines, as verification computes them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import attfc_train
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.errors import AttfcError, DataError, UsageError
from attfc_train.evaluate.embed import embed as embed_for_verification
from attfc_train.export.model_file import Encoder
from tests.train.export.networks import CPU, TINY, opened


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return opened(TINY)


def pixels(identity: int, image: int = 0) -> NDArray[np.uint8]:
    return np.asarray(render_face(identity, image, 32), dtype=np.uint8)


def png(array: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_the_embeddings_are_those_of_verification(encoder: Encoder) -> None:
    """Catches BGR, an image without its mirror image, and rows that are not of length 1."""
    images = torch.from_numpy(np.stack([pixels(identity) for identity in range(5)])).permute(0, 3, 1, 2)
    wanted = embed_for_verification(encoder.network, images, batch_size=5, device=CPU).embeddings
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = attfc_train.embed(encoder, images, batch_size=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_every_form_of_an_image_is_the_same_image(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(pixels(3)))
    forms = [pixels(3), png(pixels(3)), tmp_path / "a.png", str(tmp_path / "a.png")]
    table = attfc_train.embed(encoder, forms)
    np.testing.assert_allclose(table, table[:1].repeat(len(forms), 0), atol=1e-6)


def test_comparing_is_the_cosine(encoder: Encoder) -> None:
    one, other = attfc_train.embed(encoder, [pixels(0), pixels(1)])
    assert attfc_train.compare(encoder, pixels(0), pixels(1)) == pytest.approx(float(one @ other), abs=1e-6)
    assert attfc_train.compare(encoder, pixels(0), pixels(0)) == pytest.approx(1.0)
    assert attfc_train.compare(encoder, pixels(0), pixels(1)) < 0.999


def test_no_images_are_no_rows(encoder: Encoder) -> None:
    assert attfc_train.embed(encoder, []).shape == (0, 16)


def test_an_image_that_cannot_be_read_is_named(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.jpg"):
        attfc_train.embed(encoder, [pixels(0), tmp_path / "b.jpg"])
    with pytest.raises(DataError, match="image 1"):
        attfc_train.embed(encoder, [pixels(0), b"no picture"])
    with pytest.raises(DataError, match=r"missing\.jpg"):
        attfc_train.compare(encoder, pixels(0), tmp_path / "missing.jpg")


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 32, 32, 3), (3, 32, 32)])
def test_a_tensor_of_another_shape_is_refused(shape: tuple[int, ...], encoder: Encoder) -> None:
    with pytest.raises(UsageError, match=r"uint8 \[N, 3, 32, 32\]"):
        attfc_train.embed(encoder, torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(UsageError, match="float32"):
        attfc_train.embed(encoder, torch.zeros(2, 3, 32, 32))


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AttfcError, match="must exist"):
        attfc_train.load_encoder(tmp_path / "model.pt")


def test_importing_the_package_loads_nothing() -> None:
    """Catches an import at the top of ``attfc_train/__init__.py``: the command line would wait for torch."""
    code = "import sys, attfc_train; print(sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'attfc_train'" in loaded
    assert not [name for name in ("torch", "numpy", "pydantic", "PIL", "onnx", "typer") if f"'{name}'" in loaded]


def test_the_public_names_are_there_and_documented() -> None:
    assert attfc_train.__all__ == ["DynamicClassContainer", "attfc_loss", "compare", "embed", "load_encoder"]
    for name in attfc_train.__all__:
        assert name in dir(attfc_train)
        assert getattr(attfc_train, name).__doc__
        assert getattr(attfc_train, name) is getattr(attfc_train, name)
    with pytest.raises(AttributeError, match="has no attribute 'embedd'"):
        attfc_train.embedd  # noqa: B018
