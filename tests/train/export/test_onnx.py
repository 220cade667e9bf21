"""What is written as ONNX is the network, for every backbone and batch size, and has the interface of the field."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from attfc_train.backbones.kinds import BACKBONES
from attfc_train.errors import AttfcError, UsageError
from attfc_train.export.model_file import open_encoder, open_network, read_state
from attfc_train.export.program import BATCH_SIZES
from attfc_train.export.write import LEAST_COSINE, export
from attfc_train.profile.profile import ModelSettings
from tests.train.export.networks import CPU, TINY, needs, noise, opened

needs("onnx", "onnxruntime")

import onnx  # noqa: E402  # after the skip
import onnxruntime  # noqa: E402

from attfc_train.export import onnx_graph  # noqa: E402

SMALL = {name: ModelSettings(backbone=name, image_size=32, embedding_size=16) for name in BACKBONES}


# One of every module that builds: r34 to r200 are r18's blocks, more of them. The shuffling networks do more.
BUILT = [*{kind.builder: name for name, kind in reversed(BACKBONES.items())}.values(), "shufflemixfacenet_xs"]


@pytest.mark.parametrize("name", BUILT)
def test_every_kind_of_backbone_gives_the_same_embeddings(name: str, tmp_path: Path) -> None:
    """Catches padding at the ends only, a slope along the width, and a batch size that is baked into the graph."""
    encoder = opened(SMALL[name])
    written = export(encoder, tmp_path / "model.onnx", "fp32", noise(32))
    assert written.cosine is not None
    assert written.cosine >= LEAST_COSINE["fp32"] == 0.99999
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for size in BATCH_SIZES:
        images = noise(32, size)
        (result,) = session.run(None, {"data": images.numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(torch.from_numpy(result), encoder.network(images), rtol=1e-4, atol=1e-4)


def test_the_interface_is_the_fields(tmp_path: Path) -> None:
    export(opened(TINY), tmp_path / "model.onnx", "fp32", noise(32))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(each.name, each.shape, each.type) for each in session.get_inputs()] == [
        ("data", ["None", 3, 32, 32], "tensor(float)")
    ]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("embedding", ["None", 16])]


@pytest.mark.parametrize("name", BUILT)
def test_the_graph_is_valid_and_looks_to_nobody_as_if_it_scaled_pixels(name: str, tmp_path: Path) -> None:
    """InsightFace's package takes a Sub and a Mul among the first 8 names of nodes for that."""
    export(opened(SMALL[name]), tmp_path / "model.onnx", "fp32", noise(32))
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert not [each for each in names if each.startswith(("Sub", "Mul", "_minus", "_mul"))]


@pytest.mark.parametrize("name", BUILT)
def test_parameters_come_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    """Catches BatchNorm folded into its convolution, and slopes that keep their broadcast shape."""
    encoder = opened(SMALL[name])
    export(encoder, tmp_path / "model.onnx", "fp32", noise(32))
    state, settings = read_state(tmp_path / "model.onnx")
    own = {key: value for key, value in encoder.network.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert state.keys() == own.keys()
    assert all(torch.equal(state[key], own[key]) for key in own)
    assert settings == encoder.settings
    again = open_network(tmp_path / "model.onnx")
    assert torch.equal(again.network(noise(32)), encoder.network(noise(32)))


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.55), ("int8", 0.35)])
def test_smaller_variants_are_smaller_and_alike(precision: str, share: float, tmp_path: Path) -> None:
    encoder = opened(ModelSettings(backbone="tiny", image_size=64, embedding_size=64))
    images = noise(64, 64)
    whole = export(encoder, tmp_path / "whole.onnx", "fp32", images)
    small = export(encoder, tmp_path / "small.onnx", precision, images)  # type: ignore[arg-type]  # parametrised
    assert small.size < share * whole.size
    assert small.cosine is not None
    assert LEAST_COSINE[precision] <= small.cosine < 1 - 1e-9, "other numbers than fp32's, and near them"
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    assert [each.type for each in (*session.get_inputs(), *session.get_outputs())] == ["tensor(float)"] * 2
    assert open_encoder(tmp_path / "small.onnx").settings == encoder.settings


@pytest.mark.parametrize("name", ["vargfacenet", "shufflemixfacenet_xs"])
def test_constants_of_a_graph_follow_its_precision(name: str, tmp_path: Path) -> None:
    """Catches a float32 factor in a float16 graph, and a shape that is no integer any more."""
    settings = ModelSettings(backbone=name, image_size=64, embedding_size=64)
    written = export(opened(settings, noise(64, 16)), tmp_path / "half.onnx", "fp16", noise(64))
    assert written.cosine is not None
    assert written.cosine >= LEAST_COSINE["fp16"]
    assert not open_encoder(tmp_path / "half.onnx").network.training


def test_large_parameters_stay_finite_in_half_precision(tmp_path: Path) -> None:
    encoder = opened(TINY)
    with torch.no_grad():
        encoder.network.features.running_var.fill_(1e6)  # type: ignore[operator, union-attr]  # above float16's 65,504
        encoder.network.features.weight.fill_(1e3)  # type: ignore[operator, union-attr]
    export(encoder, tmp_path / "half.onnx", "fp16", noise(32))
    assert torch.isfinite(open_encoder(tmp_path / "half.onnx").network(noise(32))).all()


def test_a_file_that_gives_other_embeddings_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a comparison whose result nobody looks at."""
    monkeypatch.setitem(onnx_graph.TRANSLATIONS, "aten.relu_.default", lambda _, arguments: str(arguments[0]))
    with pytest.raises(AttfcError, match=r"must give the embeddings of the original.*nothing was written") as caught:
        export(opened(TINY), tmp_path / "model.onnx", "fp32", noise(32))
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_an_operator_without_an_onnx_form_is_named() -> None:
    class Squared(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).square()

    with pytest.raises(UsageError, match=r"aten\.square"):
        onnx_graph.onnx_model(Squared(), TINY)


def test_what_works_in_place_is_seen_by_later_layers() -> None:
    """Catches a node that still reads what an in-place operator has overwritten."""

    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            torch.relu_(flat)
            return flat + flat

    model = onnx_graph.onnx_model(InPlace(), TINY)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = noise(32, 2)
    (result,) = session.run(None, {"data": images.numpy()})
    assert torch.equal(torch.from_numpy(result), InPlace()(images))


def test_the_mode_of_the_encoder_stays(tmp_path: Path) -> None:
    encoder = opened(TINY)
    encoder.network.train()
    onnx_graph.onnx_model(encoder.network, TINY)
    assert encoder.network.training
    assert encoder.network.to(CPU) is encoder.network
