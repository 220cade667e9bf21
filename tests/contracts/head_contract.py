"""What every head must do, whatever it keeps; a test class inherits `HeadContract` and gives the `settings` fixture.

What a head keeps is its ``state_dict``: that is what a checkpoint holds and a failed step must not have changed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.heads.containers.resize import Kept
from attfc_train.heads.containers.writes import Writes, commit
from attfc_train.heads.head import Head
from attfc_train.heads.kinds import HeadSite, build_head
from attfc_train.heads.settings import HeadSettings
from attfc_train.losses.learning import Descent
from attfc_train.losses.margin import Margin

CPU = torch.device("cpu")
NUM_IDS = 40
DIM = 16
BATCH = 9
"""Three steps of it do not fill a ring of 12 slots a whole number of times."""
MARGIN = Margin("cosface", 0.2)
DESCENT = Descent(rate=0.1, momentum=0.9, weight_decay=5e-4)


@dataclass(frozen=True)
class Inputs:
    """A batch as a head sees it."""

    features: Tensor
    references: Tensor
    labels: Tensor
    paired: bool = False
    """The batch is two halves; the references stand at the places of their queries."""

    def split(self, features: Tensor, weights: Tensor, parts: int) -> Iterator[tuple[Tensor, ...]]:
        """Yield what each micro-batch gives to the head, but for the margin."""
        if not self.paired:
            chunks = features.chunk(parts), self.references.chunk(parts, 1), self.labels.chunk(parts), weights.chunk(parts)
            yield from zip(*chunks, strict=True)
            return
        labels = self.labels.view(2, -1)
        halves = zip(features.chunk(2), self.references.chunk(2, 1), (labels, labels.flip(0)), weights.chunk(2), strict=True)
        for half in halves:
            yield from zip(*(each.chunk(parts, dim) for each, dim in zip(half, (0, 1, 1, 0), strict=True)), strict=True)


@dataclass(frozen=True)
class Scored:
    """A step before its commit: the loss, the gradients of features and learned weights, the centers."""

    loss: Tensor
    gradients: list[Tensor]
    centers: Tensor


def inputs(settings: HeadSettings, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    num = (1 + settings.is_paired) * BATCH
    references = torch.randn(num_references(settings), num, DIM, generator=generator)
    labels = torch.randint(0, NUM_IDS // 2, (num,), generator=generator)  # identities come again, in a batch and later
    return Inputs(torch.randn(num, DIM, generator=generator), references, labels, settings.is_paired)


def num_references(settings: HeadSettings) -> int:
    return 1 if settings.is_paired else settings.references_per_query


def kept(head: Head) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in head.state_dict().items()}


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    def bits(value: Any) -> Any:
        return value.view(torch.uint8) if isinstance(value, Tensor) and value.dtype == torch.float8_e4m3fn else value

    return left.keys() == right.keys() and all(
        torch.equal(bits(left[name]), bits(right[name])) if isinstance(left[name], Tensor) else left[name] == right[name]
        for name in left
    )


def alike(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Return whether two states differ by nothing but the order in which sums were rounded: it depends on the processor."""

    def close(value: Any, other: Any) -> bool:
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.dtype == torch.int8):
            return same({"": value}, {"": other})
        # What is stored in few bits may be rounded to the next number: a step is an eighth of a number in fp8.
        share = {1: 1 / 8, 2: 2**-7}.get(value.element_size(), 1e-4)
        value, other = value.double(), other.double()
        return bool(((value - other).abs() <= share * torch.maximum(value.abs(), value.abs().max() / 8)).all())

    return left.keys() == right.keys() and all(close(left[name], right[name]) for name in left)


def learned(head: Head) -> list[Tensor]:
    """What the optimiser trains."""
    return [parameter for parameter in head.parameters() if parameter.requires_grad]


def learns(head: Head, batch: Inputs) -> bool:
    """Whether what is no parameter learns too: rows of a layer in few bits, slots between refreshes."""
    score(head, batch, 3)
    writes = head.prepare_learning(DESCENT, 3)
    give_up(head)
    return bool(writes)


def margin_of(head: Head) -> Margin:
    """A margin of the kind that the head keeps statistics for."""
    return MARGIN if head.running is None else Margin(head.running.kind, 0.3, "exact")


def score(head: Head, batch: Inputs, step: int, parts: int = 1) -> Scored:
    """Everything of a step that comes before `prepare_enqueue`, in as many micro-batches."""
    weights = head.begin_step(batch.labels, step)
    features = batch.features.clone().requires_grad_()
    outputs = [head(*part, margin_of(head)) for part in batch.split(features, weights, parts)]
    loss = torch.stack([output.loss for output in outputs]).sum()
    gradients = list(torch.autograd.grad(loss, [features, *learned(head)]))
    return Scored(loss.detach(), gradients, torch.cat([output.centers for output in outputs]))


def give_up(head: Head) -> None:
    """What undoing a step does to a head."""
    head.forget_step()


def writes_of(head: Head, scored: Scored, batch: Inputs, step: int) -> Writes:
    """Everything that a step changes in a head."""
    return [*head.prepare_learning(DESCENT, step), *head.prepare_enqueue(scored.centers, batch.labels, step).writes]


def make_step(head: Head, batch: Inputs, step: int, parts: int = 1) -> Scored:
    scored = score(head, batch, step, parts)
    commit(writes_of(head, scored, batch, step))
    give_up(head)
    return scored


class HeadContract:
    @pytest.fixture
    def settings(self) -> HeadSettings:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """Threads cost more than they bring at these sizes."""
        former = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(former)

    def build(self, settings: HeadSettings, seed: int = 0) -> Head:
        torch.manual_seed(seed)
        site = HeadSite(NUM_IDS, DIM, batch_size=BATCH, micro_batch_size=BATCH, seed=3, total_steps=100)
        return build_head(settings.resolved(NUM_IDS), site, CPU)

    def used(self, settings: HeadSettings) -> Head:
        """A head after three steps."""
        head = self.build(settings)
        for step in range(3):
            make_step(head, inputs(settings, step), step)
        return head

    def test_the_loss_moves_features_and_learned_weights_only(self, settings: HeadSettings) -> None:
        """Catches a center that keeps its graph, and a weight in no graph that the optimiser would wait for."""
        head, batch = self.used(settings), inputs(settings, 3)
        references = batch.references.requires_grad_()
        features = batch.features.clone().requires_grad_()
        weights = head.begin_step(batch.labels, 3)
        output = head(*next(batch.split(features, weights, parts=1)), margin_of(head))
        assert (output.loss.shape, output.loss.dtype) == ((), torch.float32)
        assert not output.centers.requires_grad
        output.loss.backward()
        assert references.grad is None
        assert all(tensor.grad is None for tensor in (*head.buffers(), batch.labels, weights))
        for tensor in (features, *learned(head)):
            assert tensor.grad is not None
            assert torch.isfinite(tensor.grad).all()
            assert tensor.grad.any()

    def test_centers_are_unit_vectors_of_all_queries_or_of_none(self, settings: HeadSettings) -> None:
        """Catches a head that enqueues features of any length."""
        centers = score(self.used(settings), inputs(settings, 3), 3).centers
        assert centers.shape in ((0, DIM), inputs(settings, 3).features.shape)
        torch.testing.assert_close(centers.norm(dim=1), torch.ones(len(centers)))

    def test_the_weights_of_a_step_sum_to_one_or_no_query_counts(self, settings: HeadSettings) -> None:
        """Catches weights of 1 / B where only some queries count."""
        for head, sums in ((self.build(settings), (0.0, 1.0)), (self.used(settings), (1.0,))):
            labels = inputs(settings, 4).labels
            weights = head.begin_step(labels, 3)
            assert (weights.shape, weights.dtype) == (labels.shape, torch.float32)
            assert (weights >= 0).all()
            assert float(weights.sum()) in [pytest.approx(each, abs=1e-6) for each in sums]

    def test_a_step_is_begun_again_with_the_same_bits(self, settings: HeadSettings) -> None:
        """Catches a draw from a generator, and a head that enqueues in `forward`."""
        head, batch = self.used(settings), inputs(settings, 3)
        before = kept(head)
        first = score(head, batch, 3)
        writes_of(head, first, batch, 3)
        give_up(head)
        assert same(kept(head), before)
        second = score(head, batch, 3)
        assert torch.equal(second.loss, first.loss)
        assert torch.equal(second.centers, first.centers)
        assert all(torch.equal(left, right) for left, right in zip(first.gradients, second.gradients, strict=True))

    def test_nothing_changes_until_the_writes_are_made(self, settings: HeadSettings) -> None:
        """Catches a write in `prepare_enqueue`, and writes that write nothing."""
        head, batch = self.used(settings), inputs(settings, 3)
        before = kept(head)
        scored = score(head, batch, 3)
        writes = writes_of(head, scored, batch, 3)
        assert same(kept(head), before)
        commit(writes)
        assert same(kept(head), before) == (not writes)

    def test_a_checkpoint_holds_all_that_is_kept(self, settings: HeadSettings) -> None:
        """Catches a ring position or a queue that is in no buffer, and a value that ``weights_only`` refuses."""
        head, file = self.used(settings), io.BytesIO()
        torch.save(head.state_dict(), file)
        other = self.build(settings, seed=1)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert same(kept(other), kept(head))
        for step in (3, 4):
            left, right = (make_step(each, inputs(settings, step), step) for each in (head, other))
            assert torch.equal(left.loss, right.loss)
        assert same(kept(other), kept(head))

    def test_accumulation_changes_nothing_that_is_kept(self, settings: HeadSettings) -> None:
        """Catches a head that enqueues every micro-batch by itself, and centers that depend on who else is in the part."""
        whole, divided = self.used(settings), self.used(settings)
        for head in (whole, divided):
            if head.running is not None:
                head.running.rate = 0.0  # else a micro-batch is scored with its own figures joined to the statistics
        make_step(whole, inputs(settings, 3), 3)
        make_step(divided, inputs(settings, 3), 3, parts=3)
        # What is learned is made of sums over the batch; all else is copied, and has the same bits.
        agree = alike if learned(whole) or learns(self.used(settings), inputs(settings, 3)) else same
        assert agree(kept(whole), kept(divided))

    def test_it_runs_on_fake_tensors(self, settings: HeadSettings) -> None:
        """Catches ``.item()``, ``if tensor`` and boolean indexing: values that the host would wait for."""
        with FakeTensorMode(allow_fallback_kernels=False):
            head = self.build(settings)
            for step in range(2):
                num = (1 + settings.is_paired) * BATCH
                references = torch.zeros(num_references(settings), num, DIM)
                labels = torch.zeros(num, dtype=torch.int64)
                batch = Inputs(torch.zeros(num, DIM), references, labels, settings.is_paired)
                assert make_step(head, batch, step, parts=2).loss.shape == ()

    def test_health_is_floats_and_costs_nothing_unless_asked_for(self, settings: HeadSettings) -> None:
        """Catches a tensor in the record, and figures of a step that nobody logs."""
        head, batch = self.used(settings), inputs(settings, 3)
        scored = score(head, batch, 3)
        enqueue = head.prepare_enqueue(scored.centers, batch.labels, 3)
        assert all((each.shape, each.dtype) == ((), torch.float32) for each in enqueue.observed.values())
        commit(enqueue.writes)
        health = head.health(4, enqueue.observed)
        assert {type(value) for value in health.values.values()} <= {float}
        assert health.warning is None or isinstance(health.warning, str)
        head.observes = False
        assert head.prepare_enqueue(scored.centers, batch.labels, 4).observed == {}
        assert {type(value) for value in head.health(5, {}).values.values()} <= {float}

    def test_a_head_with_a_container_takes_over_and_others_do_nothing(self, settings: HeadSettings) -> None:
        """Catches a `container_form` without `Head.take_over`, with which a resize would train on empty slots."""
        saved, head = kept(self.used(settings)), self.build(settings, seed=1)
        before = kept(head)
        taken = head.take_over(saved)
        assert isinstance(taken, Kept) == (settings.container_form != ())
        if taken is None:
            assert same(kept(head), before)
        else:
            assert 0 < taken.kept <= taken.saved
