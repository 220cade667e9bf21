"""What the planner foresees for 10^5 to 10^9 identities on one card: bytes per identity, GiB and images/s.

    python -m benchmarks.capacity --plan [--cards a100-80,h200] [--output FILE]     # needs no GPU

Every figure is the planner's own: memory from the traced train step through the simulated allocator, headroom included, speed
from its operators' FLOPs and bytes. Network and batch are fixed (`BACKBONE`, `BATCH`), the precision is the card's best; of
the ways to divide the batch into parts, without and with checkpointing, the fastest that fits is shown, and where none fits the
least that is needed. The planner knows one card at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import ACCUMULATION, LEAST_PART, Setting
from attfc_planner.memory.model import MemoryModel
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest
from attfc_planner.search.candidates import Candidate, Evaluator
from attfc_train.document import Value
from attfc_train.files import write_text_atomically
from attfc_train.units import GIB, Bytes
from benchmarks.provenance import provenance

BACKBONE = "r50"
BATCH = 1024
SIZES = (10**5, 10**6, 10**7, 10**8, 10**9)
CARDS = ("rtx-4090", "a100-80", "h200", "b200")
_SLOTS = {"queue_length": 3.3, "num_references": 0}
HEADS: dict[str, dict[str, Value]] = {
    "full FC, fp32": {"head": "full_fc", "storage": "fp32", "momentum": True},
    **{
        f"AttFC, a slot each, {storage}": {"head": "attfc", "dcc_share": 1.0, "storage": storage, **_SLOTS}
        for storage in ("fp32", "bf16", "int8", "fp8")
    },
    "AttFC, slots for 10 %, fp32": {"head": "attfc", "dcc_share": 0.1, "storage": "fp32", **_SLOTS},
    "AttFC, slots for 1 %, int8": {"head": "attfc", "dcc_share": 0.01, "storage": "int8", **_SLOTS},
}
"""Name -> its knobs."""


@dataclass(frozen=True)
class Row:
    """One head for one number of identities on one card."""

    card: str
    head: str
    num_ids: int
    bytes_per_identity: float
    memory_bytes: Bytes
    """Of the way that is shown."""
    capacity_bytes: Bytes
    way: str
    """Parts of the batch, and whether activations are computed twice."""
    images_per_second: tuple[float, float] | None
    """None: no way fits."""


def rows(cards: Sequence[GpuProfile], sizes: Sequence[int] = SIZES, heads: Sequence[str] = tuple(HEADS)) -> Iterator[Row]:
    """Yield a row for every card, number of identities and head."""
    traced: MemoryModel | None = None
    for card in cards:
        for num_ids in sizes:
            base = base_profile(PlanRequest(num_ids=num_ids, backbone=BACKBONE, head="auto"), card)
            # One set of traces serves all cards and sizes: a storage's bytes are exact affine functions of both.
            traced = MemoryModel(base, card, card.capacity_bytes) if traced is None else traced.on(card, card.capacity_bytes)
            evaluate = Evaluator(base, card, traced)
            yield from (_row(card, name, [evaluate(each) for each in _ways(HEADS[name])], traced) for name in heads)


def _ways(head: dict[str, Value]) -> Iterator[Setting]:
    """Yield the ways to train the batch: parts, without and with checkpointing."""
    for checkpointing in (False, True):
        for parts in ACCUMULATION.values:
            assert isinstance(parts, int)
            if BATCH // parts >= LEAST_PART:
                common = {"batch_size": BATCH, "accumulation": parts, "gradient_checkpointing": checkpointing}
                yield Setting.of({**head, **common})


def _row(card: GpuProfile, name: str, ways: Sequence[Candidate], model: MemoryModel) -> Row:
    fitting = [way for way in ways if way.memory_bytes <= card.capacity_bytes]
    if fitting:
        shown = max(fitting, key=lambda way: way.images_per_second)
    else:
        shown = min(ways, key=lambda way: way.memory_bytes)
    optim = shown.profile.optim
    checkpointing = ", checkpointing" if shown.setting.gradient_checkpointing else ""
    rate = shown.speed.images_per_second
    return Row(
        card=card.slug,
        head=name,
        num_ids=shown.profile.num_ids,
        bytes_per_identity=model.head_bytes([shown.profile])[0] / shown.profile.num_ids,
        memory_bytes=shown.memory_bytes,
        capacity_bytes=card.capacity_bytes,
        way=f"{optim.accumulation} x {optim.micro_batch_size}{checkpointing}",
        images_per_second=(rate.low, rate.high) if fitting else None,
    )


def table(planned: Sequence[Row]) -> str:
    """Return a Markdown table of heads over numbers of identities, for every card; what does not fit has no speed."""
    lines = []
    for card in dict.fromkeys(row.card for row in planned):
        own = [row for row in planned if row.card == card]
        sizes = list(dict.fromkeys(row.num_ids for row in own))
        titles = " | ".join(f"{size:,}" for size in sizes)
        lines += [f"| {card}, {own[0].capacity_bytes / GIB:.1f} GiB | B/id | {titles} |", "|---" * (len(sizes) + 2) + "|"]
        for head in dict.fromkeys(row.head for row in own):
            cells = {row.num_ids: row for row in own if row.head == head}
            kept = cells[sizes[-1]].bytes_per_identity
            lines.append(f"| {head} | {kept:,.0f} | {' | '.join(_cell(cells[size]) for size in sizes)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    memory = f"{row.memory_bytes / GIB:,.1f} GiB"
    if row.images_per_second is None:
        return f"({memory})"
    low, high = row.images_per_second
    return f"{memory}, {(low + high) / 2:,.0f}/s"


def run(words: Sequence[str], output: Path | None) -> None:
    """Print the table of the cards called so, and write every figure to `output`."""
    planned = list(rows([get_card(word) for word in words]))
    print(table(planned))
    if output is not None:
        document = {"provenance": provenance(), "backbone": BACKBONE, "batch": BATCH, "rows": [asdict(row) for row in planned]}
        write_text_atomically(output, json.dumps(document, indent=1) + "\n")
