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
from attfc_train.losses.margin import Margin, MarginKind


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
