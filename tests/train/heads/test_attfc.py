"""The head's own part: what a sample is scored against besides the container."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.nn.functional import normalize

from attfc_planner.trace.recorder import record_steps
from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.containers.container import DynamicClassContainer, FifoContainer, IdentityContainer
from attfc_train.heads.containers.health import Freshness, freshness
from attfc_train.heads.containers.writes import commit
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import Slots
from attfc_train.profile.profile import DataSettings
from attfc_train.run import run
from attfc_train.run.log import read_log
from tests.train.profiles import small_profile


def head_of(container: DynamicClassContainer, batch_negatives: bool, loss: str = "chunked") -> AttFCHead:
    return AttFCHead(
        container,
        loss=IMPLEMENTATIONS[loss],
        num_references=1,
        scale=16.0,
        temperature=1.0,
        chunk=3,
        batch_negatives=batch_negatives,
    )


def test_new_centers_of_absent_identities_are_negatives_of_the_others() -> None:
    """Against logits written out: identities 7 and 8 hold slots, 3 and 4 come with this batch, 3 twice."""
    torch.manual_seed(0)
    losses = {}
    features = torch.randn(5, 16)
    references = torch.randn(1, 5, 16)
    stored = normalize(torch.randn(2, 16), dim=1)
    labels = torch.tensor([7, 3, 4, 3, 8])
    for batch_negatives in (False, True):
        container = IdentityContainer(10, 4, 16, 1)
        container.enqueue(stored, torch.tensor([7, 8]), 0)
        head = head_of(container, batch_negatives)
        weights = head.begin_step(labels, 1)
        losses[batch_negatives] = head(features, references, labels, weights, Margin("cosface", 0.1)).loss
    query = normalize(features, dim=1)
    centers = normalize(references[0], dim=1)
    for batch_negatives, loss in losses.items():
        total = 0.0
        for b, label in enumerate(labels.tolist()):
            negatives = [stored[i] for i, held in enumerate((7, 8)) if held != label]
            if batch_negatives:
                negatives += [centers[i] for i, other in enumerate(labels.tolist()) if other in (3, 4) and other != label]
            logits = torch.stack([query[b] @ centers[b] - 0.1, *(query[b] @ negative for negative in negatives)]) * 16
            total += float(torch.logsumexp(logits, 0) - logits[0]) / 5
        torch.testing.assert_close(loss, torch.tensor(total))


def test_batch_negatives_are_those_of_the_micro_batch() -> None:
    """A whole batch has more of them than its halves, unless everybody holds a slot."""
    torch.manual_seed(0)
    container = IdentityContainer(6, 6, 16, 1)
    head = head_of(container, True)
    features = torch.randn(6, 16)
    references = torch.randn(1, 6, 16)
    labels = torch.arange(6)
    weights = torch.full((6,), 1 / 6)
    margin = Margin("cosface", 0.1)

    def losses() -> tuple[float, float]:
        halves = [slice(0, 3), slice(3, 6)]
        parts = [head(features[half], references[:, half], labels[half], weights[half], margin).loss for half in halves]
        return float(head(features, references, labels, weights, margin).loss), float(sum(parts))

    whole, parts = losses()
    assert whole > parts * 1.05
    container.enqueue(normalize(torch.randn(6, 16), dim=1), labels, 0)
    whole, parts = losses()
    assert whole == pytest.approx(parts)


def ring_head(batch_negatives: bool) -> AttFCHead:
    """Identity 7 lies in the ring already."""
    container = FifoContainer(6, 16)
    container.enqueue(normalize(torch.randn(1, 16), dim=1), torch.tensor([7]), 0)
    return head_of(container, batch_negatives, "reference")


def test_all_new_centers_join_a_ring_which_nobody_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = ring_head(True)
    labels = torch.tensor([7, 3, 7])
    monkeypatch.setattr(head.container, "find", lambda _: pytest.fail("searched"))
    features = torch.randn(3, 16)
    references = torch.randn(1, 3, 16)
    weights = head.begin_step(labels, 1)
    margin = Margin("cosface", 0.1)
    output = head(features, references, labels, weights, margin)
    query = normalize(features, dim=1)
    more = Slots(output.centers, None, labels)
    expected = head.loss(query, output.centers, weights, head.container.slots, labels, margin, 16.0, 3, more)
    torch.testing.assert_close(output.loss, expected)
    head.observes = False
    assert head.prepare_enqueue(output.centers, labels, 1).observed == {}


def test_measuring_changes_nothing_that_is_kept() -> None:
    heads = []
    for measures in (True, False):
        torch.manual_seed(0)
        head = ring_head(False)
        head.observes = measures
        enqueue = head.prepare_enqueue(normalize(torch.randn(3, 16), dim=1), torch.tensor([7, 3, 7]), 1)
        assert bool(enqueue.observed) == measures
        commit(enqueue.writes)
        heads.append(head)
    for left, right in zip(*(head.buffers() for head in heads), strict=True):
        assert torch.equal(left, right)


def test_only_logged_steps_measure_and_the_trace_of_memory_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []

    def counted(container: DynamicClassContainer, centers: torch.Tensor, labels: torch.Tensor, step: int) -> Freshness:
        steps.append(step)
        return freshness(container, centers, labels, step)

    monkeypatch.setattr("attfc_train.heads.attfc.head.freshness", counted)
    profile = small_profile("fifo", steps=5)
    record_steps(profile, [profile, profile])
    assert steps == [0, 1]
    steps.clear()
    data = DataSettings(path="synthetic:40x2", num_workers=1)
    settings = profile.run.model_copy(update={"log_every": 2})
    device = torch.device("cpu")
    console = Console(quiet=True)
    run.start(profile.model_copy(update={"data": data, "run": settings}), run.RunOptions(tmp_path / "run", device, console))
    assert steps == [1, 3, 4]
    logged = [record for record in read_log(tmp_path / "run") if record["event"] == "step"]
    assert [record["step"] for record in logged] == [2, 4, 5]
    assert all("center_cosine" in record and "filled_slots" in record for record in logged)
