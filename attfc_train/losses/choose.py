"""The choice of a run's implementation of the container loss, or of a learned layer's passes.

Made once, on the host, while the run is built.

On CUDA the kernel is held against the chunked pass and timed against it, on a small problem of the run's shapes. Everywhere
else, and so wherever a step is traced, the chunked pass is taken without any measuring.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.errors import ProfileError
from attfc_train.losses.container_loss import IMPLEMENTATIONS, ContainerLoss
from attfc_train.losses.learned_layers import PASSES, LearnedPasses
from attfc_train.losses.learning import Descent, LearnedRows, Learner, Pull, Rule, learned_loss
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import EMPTY, Slots
from attfc_train.rounding import LARGEST

LossKernel = Literal["auto", "chunked", "triton"]

MAX_SLOTS = 65_536
"""Slots of the container that is timed: the time per slot is the same for more."""
REPEATS = 3
TOLERANCE = 0.03
"""Relative difference of a result: five times what bf16 queries cost; a kernel that is wrong is wrong by more."""
_SOME = 4096
"""Slots whose logits stand for those of all."""
_MILD = 8.0
"""A scale at which random queries ask something of all slots; the time is the same at any."""

Inputs: TypeAlias = dict[str, Any]


class Work(Protocol):
    """What a run does at every step, small enough to be timed."""

    def problem(self, device: torch.device) -> Inputs:
        """Return inputs, from a generator of its own: measuring must not change how the run is initialised."""
        ...

    def run(self, name: str, inputs: Inputs) -> tuple[Tensor, ...]:
        """Return what an implementation makes of the inputs, which stay as they are.

        There are several chunks: a single one would go to torch, even where the kernel is asked for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Workload:
    """The figures of a run with a container that decide which implementation is faster."""

    batch_size: int
    """Queries scored at a time."""
    dcc_size: int
    embedding_size: int
    slot_type: torch.dtype
    scaled: bool
    """Whether slots have scales."""
    scale: float
    """s."""
    chunk: int

    def problem(self, device: torch.device) -> Inputs:
        """Return random unit vectors.

        A query and its center are unrelated, as at the start of a run: near each other they would make the loss 0, with nothing
        to compare.
        """
        vectors = _vectors(device, self.embedding_size)
        query = vectors(self.batch_size)
        centers = vectors(min(self.dcc_size, MAX_SLOTS))
        scales = centers.abs().amax(1) / 100 if self.scaled else None
        values = (centers if scales is None else centers.div_(scales[:, None])).to(self.slot_type)
        return {
            "query": query,
            "positive": vectors(self.batch_size),
            "weights": query.new_full((self.batch_size,), 1 / self.batch_size),
            "slots": Slots(values, scales, torch.arange(len(centers), device=device)),
            "labels": torch.arange(self.batch_size, device=device),
        }

    def run(self, name: str, inputs: Inputs) -> tuple[Tensor, ...]:
        """Return loss and gradient."""
        query = inputs["query"].detach().requires_grad_()
        chunk = _several(self.chunk, self.dcc_size)
        rest = {key: value for key, value in inputs.items() if key != "query"}
        loss = IMPLEMENTATIONS[name](query=query, **rest, margin=Margin("arcface", 0.5), scale=self.scale, chunk=chunk)
        (gradient,) = torch.autograd.grad(loss, query)
        return loss.detach(), gradient


@dataclass(frozen=True, slots=True)
class LearnedWorkload:
    """The figures of a run with a learned layer that decide which implementation of its two passes is faster."""

    batch_size: int
    """Queries scored at a time."""
    num_rows: int
    """Rows scored in a step."""
    embedding_size: int
    row_type: torch.dtype
    has_momentum: bool
    rule: Rule

    def problem(self, device: torch.device) -> Inputs:
        """Return unit queries and rows of about that length."""
        vectors = _vectors(device, self.embedding_size)
        drawn = vectors(min(self.num_rows, MAX_SLOTS))
        largest = LARGEST.get(self.row_type)
        scales = None if largest is None else drawn.abs().amax(1) / (largest / 2)
        values = (drawn if scales is None else drawn.div_(scales[:, None])).to(self.row_type)
        narrow = torch.float32 if self.row_type == torch.float32 else torch.bfloat16
        momentum = torch.zeros(values.shape, dtype=narrow, device=device) if self.has_momentum else None
        query = vectors(self.batch_size)
        return {
            "query": query,
            "weights": query.new_full((self.batch_size,), 1 / self.batch_size),
            "rows": LearnedRows(values, scales, momentum),
            "labels": torch.arange(self.batch_size, device=device) % len(values),
        }

    def run(self, name: str, inputs: Inputs) -> tuple[Tensor, ...]:
        """Return loss, gradient, and the directions in which rows have turned."""
        rows: LearnedRows = inputs["rows"]
        query = inputs["query"].detach().requires_grad_()
        rule = replace(self.rule, chunk=_several(self.rule.chunk, self.num_rows))
        moved = rows.cloned()
        margin = Margin("arcface", 0.5)
        score = PASSES[name].score
        loss, pull = learned_loss(score, query, inputs["weights"], moved, None, inputs["labels"], margin, rule)
        (gradient,) = torch.autograd.grad(loss, query)
        # So large a rate turns rows by many of their quanta: the rounding of a small move is mostly noise.
        descent = Descent(rate=self.batch_size * len(rows.values) / 64, momentum=0.9, weight_decay=0.0)
        with torch.no_grad():
            PASSES[name].learn(moved, None, pull, descent, rule, 0)()
            before, after = (each.slots(None).centers(torch.float32) for each in (rows, moved))
        return loss.detach(), gradient, after - before


@dataclass(frozen=True, slots=True)
class SlotsWorkload:
    """The figures of a run with slots that learn which decide which implementation of their pass is faster."""

    batch_size: int
    """Queries of a step."""
    dcc_size: int
    embedding_size: int
    slot_type: torch.dtype
    chunk: int

    @property
    def _rule(self) -> Rule:
        return Rule(_MILD, torch.inf, _several(self.chunk, self.dcc_size))

    def problem(self, device: torch.device) -> Inputs:
        """Return slots, every eighth of them empty, and what random queries ask of them."""
        layer = LearnedWorkload(self.batch_size, self.dcc_size, self.embedding_size, self.slot_type, False, self._rule)
        drawn = layer.problem(device)
        rows: LearnedRows = drawn["rows"]
        identities = torch.arange(len(rows.values), device=device)
        labels = torch.where(identities % 8 == 7, EMPTY, identities)
        rows = replace(rows, labels=labels, are_units=True)
        query = drawn["query"]
        some = rows.slots(torch.arange(min(len(labels), _SOME), device=device)).centers(torch.float32)
        offset = (_MILD * query @ some.t()).logsumexp(1) + math.log(len(labels) / len(some))
        pull = Pull(query, offset, torch.zeros_like(offset), drawn["labels"])
        return {"rows": rows, "pull": pull}

    def run(self, name: str, inputs: Inputs) -> tuple[Tensor, ...]:
        """Return the directions in which slots have turned."""
        rows: LearnedRows = inputs["rows"]
        moved = rows.cloned()
        # A slot is asked for about sqrt(B) / N: so large a rate turns it by many quanta, and rounding is the least of it.
        descent = Descent(rate=len(rows.values) / self.batch_size**0.5, momentum=0.0, weight_decay=0.0)
        with torch.no_grad():
            PASSES[name].learn(moved, None, inputs["pull"], descent, self._rule, 0)()
            before, after = (each.slots(None).centers(torch.float32) for each in (rows, moved))
        return (after - before,)


def _vectors(device: torch.device, dim: int) -> Callable[[int], Tensor]:
    """Return a function that draws unit vectors [n, D]."""
    generator = torch.Generator(device).manual_seed(0)
    return lambda num: normalize(torch.randn(num, dim, device=device, generator=generator), dim=1)


def _several(chunk: int, size: int) -> int:
    """Return a chunk of which the slots that are timed are two at least."""
    return max(1, min(chunk, MAX_SLOTS // 2, size // 2))


def choose(kernel: LossKernel, device: torch.device, work: Workload) -> ContainerLoss:
    """Return the container loss of a run; host side, synchronises.

    Raises:
        ProfileError: `kernel` is ``triton`` and it cannot run here.
    """
    return IMPLEMENTATIONS[_chosen(kernel, device, work)]


def choose_passes(kernel: LossKernel, device: torch.device, work: LearnedWorkload) -> LearnedPasses:
    """Return the passes over the rows of a learned layer, as `choose` does."""
    return PASSES[_chosen(kernel, device, work)]


def choose_learner(kernel: LossKernel, device: torch.device, work: SlotsWorkload) -> Learner:
    """Return the pass in which the slots of a container learn, as `choose` does."""
    return PASSES[_chosen(kernel, device, work)].learn


def _chosen(kernel: LossKernel, device: torch.device, work: Work) -> str:
    if kernel == "triton":
        _require_triton(device, work)
        return kernel
    if kernel == "chunked" or device.type != "cuda":
        return "chunked"
    return fastest(device, work)


def fastest(device: torch.device, work: Work) -> str:
    """Return ``triton`` if it runs, agrees with ``chunked`` and is faster, else ``chunked``; warn if it failed or disagrees."""
    try:
        seconds = _measured(device, work)
    except Exception as error:  # a compiler, a driver, a missing package: a run that has another way must not stop
        _fall_back(f"{type(error).__name__}: {error}")
        seconds = {"chunked": 0.0}
    # Only now: within the ``try`` the inputs, or an error's traceback, still hold what is to be given back.
    _release(device)
    return min(seconds, key=seconds.__getitem__)


def _measured(device: torch.device, work: Work) -> dict[str, float]:
    """Return the seconds of each implementation whose result is right."""
    inputs = work.problem(device)
    difference = _difference(inputs, work)
    if not difference <= TOLERANCE:  # so written, a NaN falls back too
        _fall_back(f"its result differs by {difference:.1%}")
        return {"chunked": 0.0}
    return {name: _seconds(name, inputs, work) for name in ("chunked", "triton")}


def _require_triton(device: torch.device, work: Work) -> None:
    """Run the kernel once, which also tunes it on a small container instead of in the first step."""
    rule = "head.loss_kernel 'triton' needs a CUDA device and a working triton"
    remedy = "Set head.loss_kernel to 'auto'."
    if device.type != "cuda":
        raise ProfileError(rule, f"the device {device}", remedy)
    try:
        work.run("triton", work.problem(device))
    except Exception as error:
        raise ProfileError(rule, f"{type(error).__name__}: {error}", remedy) from error
    finally:
        _release(device)


def _difference(inputs: Inputs, work: Work) -> float:
    """Return the largest relative difference of what two implementations return; NaN where one is."""
    pairs = zip(work.run("triton", inputs), work.run("chunked", inputs), strict=True)
    differences = [(actual - expected).norm() / expected.norm() for actual, expected in pairs]
    return float(torch.stack(differences).max())  # Python's max would pass over a NaN that comes second


def _seconds(name: str, inputs: Inputs, work: Work) -> float:
    """Return the time of one forward and backward pass: the best of a few."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work.run(name, inputs)[0].item()
        times.append(time.perf_counter() - start)
    return min(times)


def _fall_back(reason: str) -> None:
    warnings.warn(
        f"the triton kernel is not used, the slower chunked pass is ({reason}); head.loss_kernel 'chunked' silences this",
        RuntimeWarning,
        stacklevel=4,
    )


def _release(device: torch.device) -> None:
    """Give the measurement's memory back to the device: the run's own must not be fragmented by it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
