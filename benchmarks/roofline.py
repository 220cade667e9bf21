"""What a card allows a train step: its operators' FLOPs and bytes under the card's two ceilings, and the share that counts.

    python -m benchmarks.roofline                # H200: results/roofline.json, results/roofline.svg, and a table
    python -m benchmarks.roofline --card b200    # another card's table, no file

Nothing is measured. Operators are those of the real `train_step`, counted on tensors without data; ceilings are the
catalogue's. An operator takes the longer of its arithmetic at the peak rate and its bytes at the full bandwidth, so the images
a second under the roofline are more than any run can reach; beside them stands what the planner foresees. The loss, and the
pass in which slots learn, count as the kernels that a GPU has for them (`attfc_train.timing.kernels`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.profile import TENSOR_FIELD, GpuProfile
from attfc_planner.speed.model import predict_speed, rate_of
from attfc_train.profile.file import load_preset
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.counting import counted_step
from attfc_train.timing.kernels import SlotKernels
from attfc_train.timing.limits import LABELS
from attfc_train.timing.op_cost import KERNELS, OpCost, OpKind
from benchmarks.provenance import RESULTS, provenance, save

CARD: Final = "h200"
PRECISION: Final = "bf16"
IDS: Final = 2_059_906
"""WebFace42M's."""


@dataclass(frozen=True, slots=True)
class Target:
    """One training whose speed is wanted."""

    backbone: str
    share: float
    """C over the identities."""
    references: int
    storage: str

    @property
    def label(self) -> str:
        """The training in words."""
        return f"{self.backbone}, C={round(self.share * IDS):,} in {self.storage}, R={self.references}"

    def profile(self) -> TrainProfile:
        """Return it with 1,024 queries in bf16."""
        preset = load_preset("attfc")
        head = {"dcc_share": self.share, "num_references": self.references, "storage": self.storage}
        changed = {
            "model": preset.model.model_copy(update={"backbone": self.backbone}),
            "head": preset.head.model_copy(update=head),
            "optim": preset.optim.model_copy(update={"batch_size": 1024}),
            "run": preset.run.model_copy(update={"precision": PRECISION}),
        }
        return preset.model_copy(update=changed).resolve(IDS, 20 * IDS)


TARGETS: Final = (
    Target("r50", 0.3, 0, "fp32"),
    Target("r50", 0.3, 0, "bf16"),
    Target("r50", 0.3, 1, "bf16"),
    Target("r50", 1.0, 0, "bf16"),
    Target("r100", 0.3, 0, "bf16"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """The operators of one phase and one kind."""

    phase: str
    kind: OpKind
    flops: int
    bytes: int
    seconds: float
    """Under the roofline."""


def parts_of(costs: Iterable[OpCost], card: GpuProfile) -> list[Part]:
    """Return the parts of a step, the longest first."""
    sums: dict[tuple[str, OpKind], list[float]] = {}
    bandwidth = card.ceiling("memory_bandwidth_bytes_per_second")
    for cost in costs:
        seconds = max(cost.flops / rate_of(cost.kind, card, PRECISION), cost.bytes_read_written / bandwidth)
        part = sums.setdefault((cost.phase, cost.kind), [0, 0, 0.0])
        for place, value in enumerate((cost.flops, cost.bytes_read_written, seconds)):
            part[place] += value
    made = [Part(*key, int(flops), int(moved), seconds) for key, (flops, moved, seconds) in sums.items()]
    return sorted(made, key=lambda part: -part.seconds)


def row(target: Target, card: GpuProfile) -> dict[str, Any]:
    """Return the ceiling of one training, its parts, and what the planner foresees."""
    profile = target.profile()
    costs = counted_step(profile)
    kernels = SlotKernels.of(profile, card.triton_card)
    assert kernels is not None, f"{card.name} has no kernels for {target.label}"
    parts = parts_of(kernels.fused(costs), card)
    seconds = sum(part.seconds for part in parts)
    head = sum(part.seconds for part in parts if part.kind in KERNELS or part.kind == "loss")
    arithmetic = sum(part.flops / rate_of(part.kind, card, PRECISION) for part in parts)
    foreseen = predict_speed(profile, card, costs).loading.unfed
    return {
        "target": target.label,
        "roofline_images_per_second": profile.optim.batch_size / seconds,
        "arithmetic_images_per_second": profile.optim.batch_size / arithmetic,
        "predicted_images_per_second": [foreseen.low, foreseen.high],
        "step_seconds": seconds,
        "head_share": head / seconds,
        "parts": [asdict(part) for part in parts],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table."""
    lines = [
        "| training, batch 1,024, bf16 | arithmetic alone | roofline | planned | head's share | longest parts |",
        "|---|---|---|---|---|---|",
    ]
    for each in rows:
        longest = ", ".join(
            f"{LABELS.get(part['phase'], part['phase'])} {part['kind']} {part['seconds'] / each['step_seconds']:.0%}"
            for part in each["parts"][:3]
        )
        planned = each["predicted_images_per_second"]
        lines.append(
            f"| {each['target']} | {each['arithmetic_images_per_second']:,.0f} | {each['roofline_images_per_second']:,.0f} "
            f"| {planned[0]:,.0f} to {planned[1]:,.0f} | {each['head_share']:.1%} | {longest} |"
        )
    return "\n".join(lines)


def draw(each: dict[str, Any], card: GpuProfile, path: Path) -> None:
    """Draw the roofline and the parts of a step, whose area is their time; skipped without matplotlib (``[report]``)."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed (pip install 'attfc[report]')")
        return
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    _draw(figure.subplots(), each, card)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "attfc"}):  # text as text, and the same file every time
        figure.savefig(path, metadata={"Date": None})


def _draw(axes: Any, each: dict[str, Any], card: GpuProfile) -> None:
    peak, bandwidth = card.ceiling(TENSOR_FIELD[PRECISION]), card.ceiling("memory_bandwidth_bytes_per_second")
    edge = peak / bandwidth
    axes.plot([0.1, edge, 10_000], [0.1 * bandwidth / 1e12, peak / 1e12, peak / 1e12], color="black", linewidth=1)
    for part, x, y, share in _points(each):
        name = f"{LABELS.get(part['phase'], part['phase'])} {part['kind']}"
        axes.scatter([x], [y], s=2000 * share, alpha=0.5, label=f"{name}, {share:.0%}")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte", ylabel="TFLOP/s that the card allows")
    axes.set_title(f"{each['target']} on {card.name}: {each['roofline_images_per_second']:,.0f} images/s at most", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    legend = axes.legend(fontsize=7, loc="lower right", title="share of the time", title_fontsize=7)
    for handle in legend.legend_handles:
        handle.set_sizes([30])


def _points(each: dict[str, Any]) -> Iterator[tuple[dict[str, Any], float, float, float]]:
    """Yield the parts that take a hundredth of the time or more, with FLOPs a byte, TFLOP/s and share.

    Parts that only move bytes have no place: they stand beside each other at the foot of the slope.
    """
    place = 0.1
    for part in each["parts"]:
        share = part["seconds"] / each["step_seconds"]
        if share < 0.01:
            continue
        flops = part["flops"] or place * part["bytes"]
        place *= 1 if part["flops"] else 2
        yield part, flops / max(1, part["bytes"]), flops / part["seconds"] / 1e12, share


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--card", default=CARD, help="a card of 'attfc-plan gpus'")
    card = get_card(parser.parse_args().card)
    rows = [row(target, card) for target in TARGETS]
    print(table(rows))
    if card.slug == CARD:
        draw(rows[1], card, RESULTS / "roofline.svg")
        document = {"provenance": provenance(), "card": card.name, "rows": rows}
        print(save("roofline.json", json.dumps(document, indent=1) + "\n"))


if __name__ == "__main__":
    main()
