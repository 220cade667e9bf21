"""The published setting reproduces what the authors' released head computes, over all recorded steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attfc_train.heads.attention import generate_class_centers
from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.containers.container import FifoContainer
from attfc_train.heads.containers.writes import commit
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.learning import Descent
from attfc_train.losses.margin import Margin, MarginKind
from tests.train.heads.learned_heads import layer_of, make_step


@pytest.mark.parametrize(("kind", "index"), [("arcface", 1), ("cosface", 2)])
def test_released_code(golden: Path, kind: MarginKind, index: int) -> None:
    record = np.load(golden / f"attfc_{kind}.npz")
    container = FifoContainer(*record["init_centers"].shape)
    container.slots.values.copy_(torch.from_numpy(record["init_centers"]))
    head = AttFCHead(
        container,
        loss=IMPLEMENTATIONS["chunked"],
        num_references=len(record["refs_0"]),
        scale=float(record["scale"]),
        temperature=1.0,
        chunk=16,
        batch_negatives=False,
    )
    steps = sum(key.startswith("loss_") for key in record)
    assert steps >= 5
    for step in range(steps):
        check_step(head, record, step, Margin(kind, float(record["margin"][index])))


def check_step(head: AttFCHead, record: dict[str, np.ndarray], step: int, margin: Margin) -> None:
    query = torch.from_numpy(record[f"query_{step}"]).requires_grad_()
    references = torch.from_numpy(record[f"refs_{step}"])
    labels = torch.from_numpy(record[f"labels_{step}"]).long()
    gcc = generate_class_centers(query.detach(), references)
    np.testing.assert_allclose(gcc, record[f"gcc_{step}"], rtol=1e-5, atol=1e-6)
    output = head(query, references, labels, head.begin_step(labels, step), margin)
    np.testing.assert_allclose(output.loss.item(), record[f"loss_{step}"], rtol=1e-5)
    (gradient,) = torch.autograd.grad(output.loss, query)
    expected = record[f"grad_{step}"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    commit(head.prepare_enqueue(output.centers, labels, step).writes)
    np.testing.assert_allclose(head.container.slots.values, record[f"centers_{step}"], rtol=1e-5, atol=1e-6)
    # The released ring starts with random negatives that match no label; the record writes them as -1.
    np.testing.assert_array_equal(head.container.slot_labels.clamp_min(-1), record[f"slot_labels_{step}"])


LEARNED = ["full_fc_arcface", "full_fc_cosface_filter04", "partial_fc_cosface_r03"]


@pytest.mark.parametrize("name", LEARNED)
def test_released_learned_layers(name: str, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step starts from the recorded rows: a released partial layer moves those, too, that it did not score."""
    record = np.load(golden / "family" / f"{name}.npz")
    multiplier, angle, cosine = record["margin"]
    margin = Margin("combined", float(angle), "straight_through", float(multiplier), float(cosine))
    sample_rate = float(record["sample_rate"])
    rows = torch.from_numpy(record["weight_init"])
    layer = layer_of(
        *rows.shape,
        sample_rate=sample_rate if sample_rate < 1 else None,
        scale=float(record["scale"]),
        interclass_filter=float(record["filter_threshold"]),
    )
    optim = Descent(float(record["lr"]), float(record["momentum"]), float(record["weight_decay"]))
    buffer = torch.zeros_like(rows)
    for step in range(int(record["steps"])):
        sampled = torch.from_numpy(record[f"sampled_{step}"])
        monkeypatch.setattr("attfc_train.heads.partial_fc.head.draw_classes", lambda *_, drawn=sampled: drawn.clone())
        assert layer.momentum is not None
        layer.values.copy_(rows)
        layer.momentum.copy_(buffer)
        labels = torch.from_numpy(record[f"labels_{step}"])
        features = torch.from_numpy(record[f"embeddings_{step}"])
        loss, gradient, classes = make_step(layer, features, labels, step, margin, optim)
        np.testing.assert_allclose(loss.item(), record[f"loss_{step}"], rtol=2e-5)
        expected = record[f"grad_embeddings_{step}"]
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        after = torch.from_numpy(record[f"weight_{step}"])
        np.testing.assert_allclose(layer.values[classes], after[classes], rtol=0, atol=2e-5 * float(after.abs().max()))
        assert sorted(classes) == sampled.tolist()
        # w' = w - rate b: the release's buffer of all rows.
        buffer = (rows - after) / optim.rate
        rows = after
