"""Other people's ONNX files: run where they are plain networks, refused where they could be anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attfc_train.errors import CheckpointError
from attfc_train.export.model_file import initialise, open_encoder, open_network
from attfc_train.export.write import export
from tests.train.export.networks import TINY, needs, noise, opened, trained

needs("onnx", "onnxruntime")

import onnx  # noqa: E402  # after the skip
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Change = Callable[[onnx.ModelProto], object]


def foreign(batch: Any = "N", result: Any = None, side: int = 32) -> onnx.ModelProto:
    """A network that is no backbone of ours: a pooled picture and a matrix."""
    weight = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["pooled"], name="Sub_1"),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, 8] if result is None else result)],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_another_network_runs(tmp_path: Path) -> None:
    encoder = open_encoder(saved(foreign(), tmp_path / "theirs.onnx"))
    assert (encoder.image_size, encoder.embedding_size, encoder.settings) == (32, 8, None)
    weight = numpy_helper.to_array(foreign().graph.initializer[0])
    wanted = noise(32, 5).mean((2, 3)) @ torch.from_numpy(weight.copy())
    torch.testing.assert_close(encoder.network(noise(32, 5)), wanted, rtol=1e-5, atol=1e-6)


def test_a_width_that_the_file_does_not_say_is_found_out(tmp_path: Path) -> None:
    assert open_encoder(saved(foreign(result=["N", "D"]), tmp_path / "theirs.onnx")).embedding_size == 8


def test_its_parameters_are_of_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"parameters of a known backbone.*'weight'"):
        open_network(saved(foreign(), tmp_path / "theirs.onnx"))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_batch_size_that_is_fixed_is_kept(batch: int, tmp_path: Path) -> None:
    fixed = open_encoder(saved(foreign(batch=batch), tmp_path / "fixed.onnx"))
    free = open_encoder(saved(foreign(), tmp_path / "free.onnx"))
    torch.testing.assert_close(fixed.network(noise(32, 5)), free.network(noise(32, 5)))


def test_a_network_that_mixes_its_images_is_said(tmp_path: Path) -> None:
    model = foreign(result=["A", "B"])
    model.graph.node[1].attribute.append(helper.make_attribute("axis", 0))
    del model.graph.node[2:], model.graph.initializer[:]
    model.graph.output[0].name = "flat"
    encoder = open_encoder(saved(model, tmp_path / "theirs.onnx"))
    with pytest.raises(CheckpointError, match=r"an embedding per image, but got shape \[1, 6\] for 2"):
        encoder.network(noise(32, 2))


def test_parameters_that_an_exporter_folded_are_not_trained_on(tmp_path: Path) -> None:
    """InsightFace's files are so: BatchNorm is in the convolution before it, and parameters are numbers."""
    encoder = opened(TINY)
    export(encoder, tmp_path / "ours.onnx", "int8", noise(32, 64))
    with pytest.raises(CheckpointError, match=r"fc\.weight is missing.*folded.*use the \.pt file"):
        initialise(trained(TINY), tmp_path / "ours.onnx")
    assert open_encoder(tmp_path / "ours.onnx").settings == TINY


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def _claims_more(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**20, 2**20]


def _huge_padding(model: onnx.ModelProto) -> None:
    kernel = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "kernel")
    model.graph.initializer.append(kernel)
    model.graph.node.insert(0, helper.make_node("Conv", ["data", "kernel"], ["wide"], pads=[50_000] * 4))
    model.graph.node[1].input[0] = "wide"


def _doubling(model: onnx.ModelProto) -> None:
    last = "data"
    for step in range(30):
        model.graph.node.insert(step, helper.make_node("Concat", [last, last], [f"twice_{step}"], axis=2))
        last = f"twice_{step}"
    model.graph.node[30].input[0] = last


def _loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], body=model.graph))


def _domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"


def _two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["N", 3]))


def _bytes_in(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def _circle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "out"


def _constant(model: onnx.ModelProto) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[2**40])
    model.graph.node.append(helper.make_node("Constant", [], ["more"], value=tensor))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_external, "in another file"),
        (_claims_more, "other bytes than its shape"),
        (_constant, "other bytes than its shape"),
        (_huge_padding, "the result 'wide'"),
        (_doubling, "the result 'twice_"),
        (_loop, "operator 'Loop'"),
        (_domain, "operator 'com.evil.GlobalAveragePool'"),
        (_two_outputs, "2 outputs"),
        (_bytes_in, "is not float32"),
        (_circle, "an invalid graph"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_more_than_a_plain_network_is_refused(change: Change, named: str, tmp_path: Path) -> None:
    model = foreign()
    change(model)
    with pytest.raises(CheckpointError, match=named) as caught:
        open_encoder(saved(model, tmp_path / "theirs.onnx"))
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [16, 1024])
def test_a_size_beyond_face_crops_is_refused(side: int, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="S from 32 to 512"):
        open_encoder(saved(foreign(side=side), tmp_path / "theirs.onnx"))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07\xff\xff\xff", bytes(range(256)) * 10])
def test_other_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"text\.onnx"):
        open_encoder(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        open_encoder(tmp_path / "missing.onnx")
