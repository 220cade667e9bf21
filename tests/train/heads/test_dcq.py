"""The DCQ head: the whole step reproduces what the authors' released code computes, over all recorded steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import batch_norm, normalize

from attfc_train.data.batch import Batch
from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.dcq.settings import DCQSettings
from attfc_train.optim.class_encoder import MomentumEncoder, make_class_encoder
from attfc_train.optim.schedule import ScheduledRate
from attfc_train.optim.sgd import SGD
from attfc_train.profile.profile import ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.step.build import build
from attfc_train.step.rollback import StepStart
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step

CPU = torch.device("cpu")
NUM_IDS = 40
Record = dict[str, NDArray[Any]]


class BiasedBatchNorm(nn.BatchNorm1d):
    """The recordings' BatchNorm: PaddlePaddle's running variance is of the batch as it is, torch's an unbiased estimate.

    That difference is the framework's. It stays out of `attfc_train`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(x.mean(0), self.momentum)
            self.running_var.lerp_(x.var(0, correction=0), self.momentum)
        return batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class Encoder(nn.Module):
    """The recordings' encoder."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.fc = nn.Linear(*weight.shape, bias=False)
        self.bn = BiasedBatchNorm(weight.shape[1])
        with torch.no_grad():
            self.fc.weight.copy_(weight.t())

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.bn(self.fc(x))
        return features


def recorded_state(record: Record) -> TrainState:
    """The state at the start, with the recordings' encoders in the place of a backbone."""
    dim, slots = record["queue0"].shape
    margin = {"kind": "cosface", "margin": float(record["margin"]), "scale": float(record["scale"])}
    head = {"dcc_size": slots, "margin": margin, "encoder_momentum": float(record["encoder_momentum"]), "chunk_slots": 16}
    profile = TrainProfile(
        model=ModelSettings(backbone="tiny", image_size=32, embedding_size=dim),
        head=DCQSettings.model_validate(head),
        optim=OptimSettings(batch_size=len(record["labels_0"]), momentum=0, weight_decay=0, clip_norm=1e6),
        run=RunSettings(precision="fp32", steps=int(record["steps"])),
    ).resolve(NUM_IDS)
    state = build(profile, CPU)
    weight = torch.from_numpy(record["w0"])
    state.feature_encoder = Encoder(weight)
    class_encoder = make_class_encoder(lambda: Encoder(weight), state.feature_encoder)
    state.class_encoder = MomentumEncoder(class_encoder, state.feature_encoder, profile.head.class_encoder.buffers)  # type: ignore[union-attr]
    state.optimizer = SGD(list(state.feature_encoder.parameters()), momentum=0, weight_decay=0)
    state.rates = ScheduledRate(lambda _: float(record["lr"]))
    state.start = StepStart((*state.feature_encoder.buffers(), *class_encoder.buffers()))
    container = container_of(state)
    container.slots.values.copy_(torch.from_numpy(record["queue0"]).t())
    # The recordings' ring starts with labels for some slots; the others' are random floats, which no identity has.
    labels = torch.from_numpy(record["labels0"][0])
    whole = labels == labels.round()
    container.slots.labels[whole] = labels[whole].long()
    return state


def container_of(state: TrainState) -> Any:
    assert isinstance(state.head, AttFCHead)
    return state.head.container


def recorded_batch(record: Record, step: int) -> Batch:
    query, key, labels = (torch.from_numpy(record[f"{name}_{step}"]) for name in ("query", "key", "labels"))
    return Batch(query, key[None], torch.zeros(2, len(labels), dtype=torch.bool), labels)


def tensors_of(name: str, encoder: nn.Module) -> dict[str, Tensor]:
    """The tensors of an encoder by the recordings' names."""
    names = {"fc": "fc.weight", "bn_weight": "bn.weight", "bn_bias": "bn.bias"}
    names |= {"bn_mean": "bn.running_mean", "bn_var": "bn.running_var"}
    values = encoder.state_dict()
    return {f"{name}_{short}": values[long].t() if short == "fc" else values[long] for short, long in names.items()}


def gradients_of(encoder: nn.Module, before: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """The gradients of a step of plain SGD, from what it moved."""
    after = tensors_of("grad", encoder)
    return {name: (before[name] - after[name]) / rate for name in ("grad_fc", "grad_bn_weight", "grad_bn_bias")}


@pytest.mark.parametrize("name", ["dcq_cosface", "dcq_fast_ema"])
def test_released_code(name: str, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """THE train step: loss, gradients, both encoders with their statistics, the ring and what is exported.

    Catches statistics of the class encoder that are not averaged, or only averaged; a ring that is turned before it is scored;
    batch negatives; conflicts that are scored.
    """
    path = golden / "family" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{name}.npz is not among the golden files")
    record = dict(np.load(path))
    monkeypatch.setattr("attfc_train.step.step.normalised", lambda vectors, *_: vectors)  # these are no images
    state = recorded_state(record)
    assert int(record["steps"]) >= 5
    for step in range(int(record["steps"])):
        check_step(state, record, step)
    with torch.no_grad():
        exported = normalize(state.exported_encoder.eval()(torch.from_numpy(record["eval_x"])), dim=1)
    np.testing.assert_allclose(exported, record["eval_out"], rtol=0, atol=2e-6)


def check_step(state: TrainState, record: Record, step: int) -> None:
    before = {key: value.clone() for key, value in tensors_of("grad", state.feature_encoder).items()}
    metrics = train_step(state, recorded_batch(record, step))
    np.testing.assert_allclose(metrics.loss.item(), record[f"loss_{step}"], rtol=1e-5)
    for key, gradient in gradients_of(state.feature_encoder, before, float(record["lr"])).items():
        expected = record[f"{key}_{step}"]
        np.testing.assert_allclose(
            gradient, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()), err_msg=f"{key} {step}"
        )
    assert state.class_encoder is not None
    moved = tensors_of("q", state.feature_encoder) | tensors_of("k", state.class_encoder.class_encoder)
    for key, value in moved.items():
        np.testing.assert_allclose(value, record[f"{key}_{step}"], rtol=1e-5, atol=2e-6, err_msg=f"{key} {step}")
    container = container_of(state)
    np.testing.assert_allclose(container.slots.values.t(), record[f"queue_{step}"], rtol=1e-5, atol=2e-6)
    labels = record[f"queue_labels_{step}"][0]
    whole = labels == np.round(labels)
    np.testing.assert_array_equal(container.slots.labels.numpy()[whole], labels[whole])
    assert (container.slots.labels.numpy()[~whole] < 0).all()
    assert container.position == record[f"ptr_{step}"]
