"""Margins with statistics: whole heads against their definition in double precision, and the statistics by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.containers.writes import commit
from attfc_train.heads.f2c.scoring import Rule as PoolRule
from attfc_train.heads.f2c.scoring import score_pool
from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.head import Head
from attfc_train.heads.kinds import HeadSite, build_head
from attfc_train.heads.learned.layer import LearnedLayer
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.running_margin import RunningCosine, RunningLengths, running_margin
from attfc_train.heads.settings import HeadSettings, MarginSettings
from attfc_train.losses.learned_layers import PASSES
from attfc_train.losses.learning import Descent
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import Slots
from attfc_train.losses.streaming import loss_and_gradient
from attfc_train.optim import schedule
from tests.oracle.margin_oracle import MarginOracle, joined, length_statistics, mean_loss, qualities

NUM_IDS, DIM, BATCH = 40, 12, 8
RATE, SCALE, MARGIN, STEPS = 0.3, 16.0, 0.4, 3
DESCENT = Descent(rate=2e-4, momentum=0.9, weight_decay=0.0)
STILL = Descent(0.0, 0.0, 0.0)


def settings_of(kind: str, gradient: str = "exact") -> MarginSettings:
    document = {"kind": kind, "margin": MARGIN, "gradient": gradient, "scale": SCALE, "statistics_rate": RATE}
    return MarginSettings.model_validate(document)


def built(settings: HeadSettings) -> Head:
    torch.manual_seed(0)
    site = HeadSite(NUM_IDS, DIM, BATCH, BATCH, seed=3, total_steps=60)
    return build_head(settings.resolved(NUM_IDS), site, torch.device("cpu"))


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Features of lengths from about 1 to 30, and their identities."""
    generator = torch.Generator().manual_seed(step)
    lengths = 1 + 29 * torch.rand(BATCH, 1, generator=generator)
    features = normalize(torch.randn(BATCH, DIM, generator=generator), dim=1) * lengths
    return features, torch.randint(0, NUM_IDS, (BATCH,), generator=generator)


@dataclass
class Statistics:
    """What the definitions keep, as numbers."""

    kind: str
    straight_through: bool
    mean: float = 20.0
    deviation: float = 100.0
    hardness: float = 0.0
    rules: list[MarginOracle] = field(default_factory=list)

    def join(self, features: Tensor, cosines: Tensor) -> list[MarginOracle]:
        """Join a batch, and return its margins: the released code joins first."""
        mean, deviation = length_statistics(features.norm(dim=1))
        self.mean, self.deviation = joined(self.mean, mean, RATE), joined(self.deviation, deviation, RATE)
        self.hardness = joined(self.hardness, float(cosines.mean()), RATE)
        of_features = qualities(features.norm(dim=1), self.mean, self.deviation, 0.333)
        return [
            MarginOracle(self.kind, MARGIN, self.straight_through, quality=float(quality), hardness=self.hardness)
            for quality in of_features
        ]


LAYERS: dict[str, Any] = {
    "full": (FullFCSettings, {"chunk_slots": 16}),
    "sampled": (PartialFCSettings, {"sample_rate": 0.7, "chunk_slots": 17}),
}


@pytest.mark.parametrize("passes", ["chunked", "triton"])
@pytest.mark.parametrize("gradient", ["exact", "straight_through"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", ["adaface", "curricularface"])
def test_a_learned_layer_is_the_definition(kind: str, layer: str, gradient: str, passes: str) -> None:
    """Loss, gradient and rows of three steps. Catches statistics that are joined late, twice, or by parts of the batch only."""
    if passes == "triton":
        pytest.importorskip("triton")
    settings, more = LAYERS[layer]
    head = built(settings(margin=settings_of(kind, gradient), **more))
    assert isinstance(head, LearnedLayer)
    head.passes = PASSES[passes]
    statistics = Statistics(kind, gradient == "straight_through")
    rows = head.values.detach().double()
    buffers = torch.zeros_like(rows)
    for step in range(STEPS):
        features, labels = batch(step)
        weights = head.begin_step(labels, step)
        classes = list(range(NUM_IDS)) if head.index is None else head.index.tolist()
        leaf, wide = features.clone().requires_grad_(), features.double().requires_grad_()
        loss = head(leaf, torch.empty(0), labels, weights, schedule.margin(settings_of(kind, gradient), step)).loss
        rows.requires_grad_()
        units = normalize(rows, dim=1)
        own = units[labels]
        rules = statistics.join(wide.detach(), (normalize(wide, dim=1) * own).sum(1).detach())
        expected = mean_loss(wide, own, units[classes], classes, labels.tolist(), [1 / BATCH] * BATCH, rules, SCALE)
        by_feature, by_row = torch.autograd.grad(expected, [wide, rows])
        coarse = passes == "triton"  # its operands are those of tensor cores
        torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
        assert (torch.autograd.grad(loss, leaf)[0] - by_feature).norm() <= (1e-3 if coarse else 1e-4) * by_feature.norm()
        before = head.values.detach().double().clone()
        commit(head.prepare_learning(DESCENT, step))
        head.forget_step()
        learned = torch.zeros(NUM_IDS, 1, dtype=torch.float64)
        learned[classes] = 1
        buffers = torch.where(learned > 0, 0.9 * buffers + by_row, buffers)
        move = -DESCENT.rate * buffers * learned
        assert (head.values.double() - before - move).norm() <= 2e-3 * move.norm()
        rows = head.values.detach().double()
    kept = head.running
    if isinstance(kept, RunningLengths):
        assert [float(kept.mean), float(kept.deviation)] == pytest.approx([statistics.mean, statistics.deviation], rel=1e-5)
    else:
        assert isinstance(kept, RunningCosine)
        assert float(kept.hardness) == pytest.approx(statistics.hardness, rel=1e-4)


@pytest.mark.parametrize("kind", ["adaface", "curricularface"])
@pytest.mark.parametrize("references", [0, 1])
def test_a_container_head_is_the_definition(kind: str, references: int) -> None:
    """Against the slots as the step found them; a query without a positive counts for nothing."""
    head: Any = built(
        AttFCSettings(
            margin=settings_of(kind), num_references=references, queue_length=1, batch_negatives=False, chunk_slots=16
        )
    )
    statistics = Statistics(kind, straight_through=False)
    for step in range(STEPS):
        features, labels = batch(step)
        labels = labels % 6
        pictures = torch.randn(references, BATCH, DIM, generator=torch.Generator().manual_seed(step))
        slots, owners = head.container.slots.centers(torch.float64), head.container.slots.owners().tolist()
        weights = head.begin_step(labels, step)
        own = normalize(pictures[0].double(), dim=1) if references else slots[head.container.find(labels)[0]]
        counted = weights > 0
        leaf, wide = features.clone().requires_grad_(), features.double().requires_grad_()
        output = head(leaf, pictures, labels, weights, schedule.margin(settings_of(kind), step))
        kept = statistics.hardness
        cosines = (normalize(wide, dim=1) * own).sum(1).detach()[counted]
        rules = statistics.join(wide.detach(), cosines)
        if not counted.any():
            statistics.hardness = kept
        expected = mean_loss(wide, own, slots, owners, labels.tolist(), weights.tolist(), rules, SCALE)
        torch.testing.assert_close(output.loss.double(), expected, rtol=1e-4, atol=1e-5, equal_nan=False)
        if counted.any():
            gradients = torch.autograd.grad(output.loss, leaf)[0], torch.autograd.grad(expected, wide)[0]
            assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[1].norm()
        commit([*head.prepare_learning(STILL, step), *head.prepare_enqueue(output.centers, labels, step).writes])
        head.forget_step()
    if isinstance(head.running, RunningCosine):
        assert float(head.running.hardness) == pytest.approx(statistics.hardness, rel=1e-4)
        assert statistics.hardness != 0


def test_a_pool_counts_hard_negatives_in_every_view() -> None:
    """Catches the statistics of one view in the place of the other's."""
    generator = torch.Generator().manual_seed(0)
    vectors = normalize(torch.randn(30, DIM, generator=generator), dim=1)
    query, labels = vectors[:4] + 0.3 * vectors[4:8], torch.arange(4)
    query = normalize(query, dim=1)
    slots = Slots(vectors[:20], None, torch.arange(20))
    views = [Slots(vectors[20 + view : 24 + view], None, torch.arange(20, 24)) for view in (0, 4)]
    positives = [vectors[:4], normalize(vectors[:4] + vectors[8:12], dim=1)]
    margin = Margin("curricularface", MARGIN, "exact", hardness=torch.tensor(0.3))
    hard = [margin.hard_negatives((query * positive).sum(1)) for positive in positives]
    scores = score_pool(query, slots, views, labels, hard, PoolRule(SCALE, None, 3, 6))
    for score, view, positive in zip(scores, views, positives, strict=True):
        wide = query.double().requires_grad_()
        others = torch.cat([slots.values, view.values]).double()
        rules = [MarginOracle("curricularface", MARGIN, hardness=0.3)] * 4
        owners = list(range(24))
        expected = mean_loss(wide, positive.double(), others, owners, labels.tolist(), [0.25] * 4, rules, SCALE)
        (gradient,) = torch.autograd.grad(expected, wide)
        weights = torch.full((4,), 0.25)
        loss, actual = loss_and_gradient(score.softmax, query, positive, weights, margin, SCALE)
        actual = actual - (actual * query).sum(1, keepdim=True) * query
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(actual.double(), gradient, rtol=1e-3, atol=1e-5)


def test_lengths_by_hand() -> None:
    """Three lengths twice: means 20 and 2, deviations 100 and 1, a quarter at a time."""
    kept = RunningLengths(0.333, 0.25)
    features = torch.tensor([1.0, 2.0, 3.0])
    ready = kept.ready(Margin("adaface", 0.4), features, features > 0, lambda: features)
    assert ready.quality is not None
    mean, deviation = 20 * 0.75 + 2 * 0.25, 100 * 0.75 + 1 * 0.25
    assert ready.quality.tolist() == pytest.approx([0.333 * (each - mean) / (deviation + 1e-3) for each in (1, 2, 3)])
    assert float(kept.mean) == 20, "only the commit changes it"
    commit(kept.prepare(STILL))
    assert [float(kept.mean), float(kept.deviation)] == pytest.approx([mean, deviation])


@pytest.mark.parametrize("rate", [0.01, 1.0])
def test_very_long_and_very_short_features_are_held_at_the_ends(rate: float) -> None:
    kept = RunningLengths(0.333, rate)
    lengths = torch.tensor([0.0, 1e6, 50.0])
    ready = kept.ready(Margin("adaface", 0.4), lengths, lengths >= 0, lambda: lengths)
    assert ready.quality is not None
    assert ready.quality.abs().max() <= 1
    mean, deviation = length_statistics(lengths.double())
    commit(kept.prepare(STILL))
    assert float(kept.mean) == pytest.approx(joined(20, mean, rate))
    assert float(kept.deviation) == pytest.approx(joined(100, deviation, rate))


def test_cosines_are_those_that_count() -> None:
    kept = RunningCosine(0.5)
    cosines = torch.tensor([0.8, -0.9, 0.4])
    margin = Margin("curricularface", 0.5)
    ready = kept.ready(margin, cosines, torch.tensor([True, False, True]), lambda: cosines)
    assert ready.hardness is not None
    assert float(ready.hardness) == pytest.approx(0.3)
    commit(kept.prepare(STILL))
    kept.forget()
    kept.ready(margin, cosines, torch.zeros(3, dtype=torch.bool), lambda: cosines)
    commit(kept.prepare(STILL))
    assert float(kept.hardness) == pytest.approx(0.3), "nobody counted"


@pytest.mark.parametrize("kind", ["adaface", "curricularface"])
@pytest.mark.parametrize("what", ["not finite", "overflow", "a single query"])
def test_a_step_that_does_not_count_leaves_every_bit(kind: str, what: str) -> None:
    """Catches NaNs that stay in an average for ever, and a step that the scaler skipped."""
    kept = running_margin(settings_of(kind))
    assert kept is not None
    before = {name: value.clone() for name, value in kept.state_dict().items()}
    figures = {"not finite": torch.tensor([1.0, torch.nan, torch.inf]), "a single query": torch.tensor([0.5])}
    figure = figures.get(what, torch.tensor([0.1, 0.4]))
    margin = schedule.margin(settings_of(kind), 0)
    ready = kept.ready(margin, figure, torch.ones_like(figure, dtype=torch.bool), lambda: figure)
    if what == "a single query":
        assert not ready.lacks_statistics
        assert all(each.isfinite().all() for each in (ready.quality, ready.hardness) if each is not None)
        return
    commit(kept.prepare(Descent(0.1, 0.9, 0.0, torch.tensor(1.0)) if what == "overflow" else STILL))
    for name, value in kept.state_dict().items():
        assert torch.equal(value, before[name])


def test_no_gradient_reaches_the_length_of_a_feature() -> None:
    """As released (``safe_norms.clone().detach()``): a network cannot lower its loss by the lengths of its features."""
    features, labels = batch(0)
    leaf = features.clone().requires_grad_()
    head = built(FullFCSettings(margin=settings_of("adaface")))
    head.begin_step(labels, 0)
    output = head(leaf, torch.empty(0), labels, torch.full((BATCH,), 1 / BATCH), schedule.margin(settings_of("adaface"), 0))
    (gradient,) = torch.autograd.grad(output.loss, leaf)
    assert ((gradient * features).sum(1).abs() <= 1e-5 * gradient.norm(dim=1) * features.norm(dim=1)).all()
    assert gradient.any()


def test_what_is_kept_of_lengths_does_not_depend_on_parts() -> None:
    kept = []
    for parts in (1, 4):
        head = built(FullFCSettings(margin=settings_of("adaface")))
        features, labels = batch(0)
        weights = head.begin_step(labels, 0)
        for part in torch.arange(BATCH).chunk(parts):
            head(features[part], torch.empty(0), labels[part], weights[part], schedule.margin(settings_of("adaface"), 0))
        commit(head.prepare_learning(STILL, 0))
        assert isinstance(head.running, RunningLengths)
        kept.append((head.running.mean, head.running.deviation))
    assert kept[0] == kept[1]


@pytest.mark.parametrize("settings", [AttFCSettings, F2CSettings])
def test_statistics_go_over_into_a_container_of_another_size(settings: Any) -> None:
    """Catches a resumed run whose lengths begin at 20 again."""
    margin = settings_of("adaface")
    head = built(settings(margin=margin, dcc_share=0.5))
    assert isinstance(head.running, RunningLengths)
    head.running.mean.fill_(7.0)
    larger = built(settings(margin=margin, dcc_share=1.0))
    larger.take_over(head.state_dict())
    assert isinstance(larger.running, RunningLengths)
    assert float(larger.running.mean) == 7


def test_other_margins_keep_nothing() -> None:
    """So the checkpoints of earlier versions are what they were."""
    for kind in ("arcface", "cosface", "combined"):
        assert running_margin(MarginSettings.model_validate({"kind": kind})) is None
    assert not [name for name in built(FullFCSettings()).state_dict() if "running" in name]


def test_a_head_without_statistics_refuses_a_margin_that_needs_them() -> None:
    head = built(FullFCSettings())
    features, labels = batch(0)
    with pytest.raises(AssertionError, match="keeps no statistics"):
        head(features, torch.empty(0), labels, torch.full((BATCH,), 1 / BATCH), Margin("adaface", 0.4))


def test_numbers_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="concentration needs kind 'adaface'"):
        MarginSettings(kind="arcface", concentration=0.5)
    with pytest.raises(ValueError, match="statistics_rate needs kind 'adaface' or 'curricularface'"):
        MarginSettings(kind="cosface", statistics_rate=0.5)
    assert MarginSettings(kind="curricularface", statistics_rate=0.5).statistics_rate == 0.5
