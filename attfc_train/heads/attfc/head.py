"""The AttFC head: attention over references, the dynamic class container, the streaming margin loss (arXiv 2503.06839)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.heads.attention import generate_class_centers
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.containers.container import DynamicClassContainer, FifoContainer, IdentityContainer
from attfc_train.heads.containers.health import freshness, occupancy
from attfc_train.heads.containers.resize import Kept, refill
from attfc_train.heads.containers.scored import ScoredSlots
from attfc_train.heads.containers.settings import ContainerSettings
from attfc_train.heads.containers.staleness import StalenessWatch, stale_text
from attfc_train.heads.containers.stored_queue import StoredQueueContainer
from attfc_train.heads.containers.writes import Learning, Writes
from attfc_train.heads.head import Enqueue, Head, HeadOutput, Health, unit_vectors
from attfc_train.heads.kinds import HeadSite
from attfc_train.losses.choose import SlotsWorkload, Workload, choose, choose_learner
from attfc_train.losses.container_loss import IMPLEMENTATIONS, ContainerLoss
from attfc_train.losses.learned_layers import PASSES
from attfc_train.losses.learning import Descent, LearnedRows, Learner, Pull, Rule
from attfc_train.losses.learning_chunked import learner
from attfc_train.losses.margin import Margin
from attfc_train.losses.reference import chance_loss
from attfc_train.losses.slots import EMPTY, Slots
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.rounding import DTYPES, LARGEST


class AttFCHead(Head):
    """Margin softmax of queries against generated class centers (docs/methods.md, steps 4 to 8).

    Which positive, of a query of identity y with new center g (its GCC, or without references its own feature):

    * R > 0: what the slot of y will hold after this step, made of g and of what is stored. With the fifo policy, and with queue
      length 1, that is g itself, as published.
    * R = 0: what is stored of y. Where nothing is, the query has weight 0 in the loss, and any positive does.

    Which negatives: every filled slot of another identity; and with `batch_negatives` the new centers of the micro-batch whose
    identities hold no slot (fifo: all). They are the freshest there are, and with a small container the samples of a batch
    would else never be told apart.

    When: all micro-batches of a step are scored against the container as the step found it. Their centers enter it in the
    commit.

    With `scored` a step scores some of the slots: a query's own slot is its positive in any case, and its new center a batch
    negative where its slot is not scored.

    With `slot_rate` slots are generated, then learned: in every step all slots move against the gradient of the loss as other
    identities' queries see them (they stay unit vectors), and then those of the batch are refreshed, which is their pull.

    Args:
        container: holds the centers.
        loss: an implementation of the container loss, to which `scale` and `chunk` are passed.
        num_references: R.
        scale: s.
        temperature: of the attention.
        chunk: slots that the loss scores at a time.
        batch_negatives: whether new centers are negatives too.
        scored: the slots that a step scores; None: all.
        slot_rate: learning rate of the slots over that of the network; 0: slots are generated alone.
        learn: the pass in which they learn.
        watch: warns of stale centers; None: nothing does.
        ranks: the processes that share the container.
    """

    def __init__(
        self,
        container: DynamicClassContainer,
        *,
        loss: ContainerLoss,
        num_references: int,
        scale: float,
        temperature: float,
        chunk: int,
        batch_negatives: bool,
        scored: ScoredSlots | None = None,
        slot_rate: float = 0.0,
        learn: Learner = learner,
        watch: StalenessWatch | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(ranks)
        self.container = container
        self.loss = loss
        self.num_references = num_references
        self.scale = scale
        self.temperature = temperature
        self.chunk = chunk
        self.batch_negatives = batch_negatives
        self.scored = scored
        self._scored_now: range | None = None
        self.slot_rate = slot_rate
        self.learn = learn
        self._pulls: list[Pull] = []
        self.watch = watch
        self._num_queries = 0
        """Of the last micro-batch, all processes' together."""

    @property
    def kernel_phases(self) -> frozenset[str]:
        """See `Head.kernel_phases`."""
        chosen = {"loss": self.loss is IMPLEMENTATIONS["triton"], "update": self.learn is PASSES["triton"].learn}
        return frozenset(phase for phase, is_kernel in chosen.items() if is_kernel)

    def begin_step(self, labels: Tensor, step: int) -> Tensor:
        """Return 1 / B each; without references only queries whose identity holds a slot count."""
        self.forget_step()
        self._scored_now = self.scored.at(step) if self.scored else None
        # The weights of the counted queries add up to 1; where none counts, all are 0, and so is the loss.
        counted = torch.ones_like(labels, dtype=torch.float32)
        if self.num_references == 0:
            counted = self.container.find(labels)[1].float()
        return counted / counted.sum().clamp_min(1)

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """See `Head.forward`."""
        self._num_queries = len(labels) * self.ranks.size
        query, lengths = unit_vectors(features)
        detached = query.detach()
        with torch.no_grad():  # centers are generated, not learned: the gradient reaches the query alone
            centers, positive = self._centers(detached, references, labels)
            margin = self.ready_margin(margin, lengths, weights > 0, lambda: (detached * positive).sum(1))
            fresh = self._fresh(self.ranks.gathered(centers), self.ranks.gathered(labels)) if self.batch_negatives else None
        loss = self.loss(
            query,
            positive,
            weights,
            self._slots(),
            labels,
            margin,
            self.scale,
            self.chunk,
            fresh,
            partial(self._keep_pull, detached, positive, labels, weights, margin) if self.slot_rate else None,
        )
        return HeadOutput(loss, centers)

    def _keep_pull(
        self, query: Tensor, positive: Tensor, labels: Tensor, weights: Tensor, margin: Margin, log_sums: Tensor
    ) -> None:
        # d loss / d cosine of a slot = weight s p = e^(s cosine - log-sum + log(weight s)); of a query's own slot nothing.
        offset = log_sums - (weights * self.scale).log()
        hard = margin.hard_negatives((query * positive).sum(1)) if margin.weighs_negatives else None
        self._pulls.append(Pull(query, offset, torch.zeros_like(offset), labels, hard))

    @torch.no_grad()
    def prepare_learning(self, descent: Descent, step: int) -> Writes:
        """See `Head.prepare_learning`: plain gradient descent of the slots, without momentum and decay."""
        statistics = super().prepare_learning(descent, step)
        if not self._pulls:
            return statistics
        pull = Pull.joined(self._pulls, self.ranks)
        # What a step with momentum moves in all, at once.
        rate = self.slot_rate * descent.rate / (1 - descent.momentum)
        descent = replace(descent, rate=rate, momentum=0.0, weight_decay=0.0)
        rule = Rule(self.scale, torch.inf, self.chunk)
        return [*statistics, Learning(self.learn(self._learned_rows(), None, pull, descent, rule, step))]

    def _learned_rows(self) -> LearnedRows:
        slots = self._slots()
        return LearnedRows(slots.values, slots.scales, None, slots.labels, are_units=True, first=slots.first)

    def forget_step(self) -> None:
        """See `Head.forget_step`."""
        super().forget_step()
        self._pulls.clear()

    def _slots(self) -> Slots:
        return self.container.slots if self._scored_now is None else self.container.slots_within(self._scored_now)

    def _centers(self, query: Tensor, references: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new centers and the positives, both unit [b, D]."""
        if self.num_references == 0:  # a query would be its own positive; the stored center of its identity is the only other
            return query, self.container.positive(query, None, labels)
        centers = normalize(generate_class_centers(query, references.float(), self.temperature), dim=1)
        return centers, self.container.positive(query, centers, labels)

    def _fresh(self, centers: Tensor, labels: Tensor) -> Slots:
        """Return the micro-batch's new centers as slots; those that a slot stands for are empty."""
        # A shape that does not depend on values: an `EMPTY` slot is not scored. A center beside its own slot would count its
        # identity twice. The loss leaves out the centers of the query's own identity.
        stands = self.container.stands_for(labels)
        if self._scored_now is not None:
            slot, _ = self.container.find(labels)
            stands &= (slot >= self._scored_now.start) & (slot < self._scored_now.stop)
        return Slots(centers, None, torch.where(stands, EMPTY, labels))

    @torch.no_grad()
    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Enqueue:
        """See `Head.prepare_enqueue`; observes how the batch's centers differ from what is stored of its identities."""
        observed = freshness(self.container, centers, labels, step).by_name() if self.observes else {}
        return Enqueue(self.container.prepare_enqueue(centers, labels, step), observed)

    def health(self, step: int, observed: Mapping[str, Tensor]) -> Health:
        """Say what the container holds, how old and how fresh that is, and warn of stale centers."""
        if not observed:
            return Health()
        values = {
            **occupancy(self.container, step).by_name(),
            **{name: value.item() for name, value in observed.items()},
        }
        return Health(values, self.watch.warning(step, values) if self.watch else None)

    def chance_loss(self, cosine: float, margin: Margin, observed: Mapping[str, Tensor]) -> float:
        """See `Head.chance_loss`: a query is scored against the filled slots, and the micro-batch's fresh centers."""
        size = len(self.container.slot_labels)
        scored = range(size) if self._scored_now is None else self._scored_now
        filled = int((self.container.slot_labels[scored.start : scored.stop] != EMPTY).sum())
        others = filled - 1.0
        # While slots are free, new centers have just taken some of them, and are counted already.
        if self.batch_negatives and filled == len(scored):
            is_ring = isinstance(self.container, FifoContainer)  # no slot stands for an identity
            found = 0.0 if is_ring else observed["conflict_share"].item() * len(scored) / size
            others += self._num_queries * (1 - found)
        return chance_loss(cosine, others, self.resting_margin(margin), self.scale)

    def take_over(self, saved: dict[str, Any]) -> Kept:
        """See `Head.take_over`; the rule is that of `attfc_train.heads.containers.resize`."""
        self.take_over_statistics(saved)
        prefix = "container."
        return refill(self.container, {key.removeprefix(prefix): value for key, value in saved.items()})


def build(settings: AttFCSettings, site: HeadSite, device: torch.device) -> AttFCHead:
    """Build the head for a run."""
    return AttFCHead(
        loss=chosen_loss(settings, site, device),
        learn=_chosen_learner(settings, site, device) if settings.slot_rate else learner,
        container=_build_container(settings, site, device),
        num_references=settings.num_references,
        scale=settings.margin.scale,
        temperature=settings.attention_temperature,
        chunk=settings.chunk_slots,
        batch_negatives=settings.batch_negatives,
        scored=_scored(settings, site),
        slot_rate=settings.slot_rate,
        watch=StalenessWatch(site.batch_size, partial(stale_text, settings)),
        ranks=site.ranks,
    )


def chosen_loss(settings: ContainerSettings, site: HeadSite, device: torch.device) -> ContainerLoss:
    """Choose the loss of a container; before it is built, because measuring needs memory."""
    slot_type = DTYPES[settings.storage]
    work = Workload(
        batch_size=site.micro_batch_size,
        dcc_size=site.ranks.shard(settings.num_slots).num,
        embedding_size=site.embedding_size,
        slot_type=slot_type,
        scaled=slot_type in LARGEST,
        scale=settings.margin.scale,
        chunk=settings.chunk_slots,
    )
    return choose(settings.loss_kernel, device, work)


def _chosen_learner(settings: AttFCSettings, site: HeadSite, device: torch.device) -> Learner:
    """Choose the pass in which slots learn; before the container is built, because measuring needs memory."""
    work = SlotsWorkload(
        batch_size=site.batch_size,
        dcc_size=site.ranks.shard(settings.num_slots).num,
        embedding_size=site.embedding_size,
        slot_type=DTYPES[settings.storage],
        chunk=settings.chunk_slots,
    )
    return choose_learner(settings.loss_kernel, device, work)


def _scored(settings: AttFCSettings, site: HeadSite) -> ScoredSlots | None:
    if settings.first_scored_share == 1:
        return None
    return ScoredSlots(settings.num_slots, settings.first_scored_share, int(settings.growing_share * site.total_steps))


def _build_container(settings: AttFCSettings, site: HeadSite, device: torch.device) -> DynamicClassContainer:
    slots = settings.num_slots
    dim = site.embedding_size
    storage = settings.storage
    if settings.policy == "fifo":
        return FifoContainer(slots, dim, storage, ranks=site.ranks, device=device)
    if settings.queue_mode == "averaged":
        return IdentityContainer(site.num_ids, slots, dim, settings.queue_length, storage, ranks=site.ranks, device=device)
    length = int(settings.queue_length)
    temperature = settings.attention_temperature
    return StoredQueueContainer(site.num_ids, slots, dim, length, temperature, storage, ranks=site.ranks, device=device)
