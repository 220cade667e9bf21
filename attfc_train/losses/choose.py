"""The choice of a run's implementation of the container loss: made once, on the host, while the run is built.

On CUDA the kernel is held against the chunked pass and timed against it, on a small container of the run's shapes. Everywhere
else, and so wherever a step is traced, the chunked pass is taken without any measuring.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.errors import ProfileError
from attfc_train.losses.container_loss import IMPLEMENTATIONS, ContainerLoss
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import Slots

LossKernel = Literal["auto", "chunked", "triton"]

MAX_SLOTS = 65_536
"""Slots of the container that is timed: the time per slot is the same for more."""
REPEATS = 3
TOLERANCE = 0.03
"""Relative difference of loss and gradient: five times what bf16 queries cost; a kernel that is wrong is wrong by more."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The figures of a run that decide which implementation is faster."""

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


def choose(kernel: LossKernel, device: torch.device, work: Workload) -> ContainerLoss:
    """Return the implementation for a run; host side, synchronises.

    Raises:
        ProfileError: `kernel` is ``triton`` and it cannot run here.
    """
    if kernel == "triton":
        _require_triton(device, work)
        return IMPLEMENTATIONS["triton"]
    if kernel == "chunked" or device.type != "cuda":
        return IMPLEMENTATIONS["chunked"]
    return IMPLEMENTATIONS[fastest(device, work)]


def fastest(device: torch.device, work: Workload) -> str:
    """Return ``triton`` if it runs, agrees with ``chunked`` and is faster, else ``chunked``; warn if it failed or disagrees."""
    try:
        seconds = _measured(device, work)
    except Exception as error:  # a compiler, a driver, a missing package: a run that has another way must not stop
        _fall_back(f"{type(error).__name__}: {error}")
        seconds = {"chunked": 0.0}
    # Only now: within the ``try`` the inputs, or an error's traceback, still hold what is to be given back.
    _release(device)
    return min(seconds, key=seconds.__getitem__)


def _measured(device: torch.device, work: Workload) -> dict[str, float]:
    """Return the seconds of each implementation whose result is right."""
    inputs = _problem(device, work)
    difference = _difference(inputs, work)
    if not difference <= TOLERANCE:  # so written, a NaN falls back too
        _fall_back(f"its result differs by {difference:.1%}")
        return {"chunked": 0.0}
    return {name: _seconds(name, inputs, work) for name in ("chunked", "triton")}


def _require_triton(device: torch.device, work: Workload) -> None:
    """Run the kernel once, which also tunes it on a small container instead of in the first step."""
    rule = "head.loss_kernel 'triton' needs a CUDA device and a working triton"
    remedy = "Set head.loss_kernel to 'auto'."
    if device.type != "cuda":
        raise ProfileError(rule, f"the device {device}", remedy)
    try:
        _run("triton", _problem(device, work), work)
    except Exception as error:
        raise ProfileError(rule, f"{type(error).__name__}: {error}", remedy) from error
    finally:
        _release(device)


def _problem(device: torch.device, work: Workload) -> dict[str, Any]:
    """Return random unit vectors, from a generator of its own: measuring must not change how the run is initialised.

    A query and its center are unrelated, as at the start of a run: near each other they would make the loss 0, with nothing to
    compare.
    """
    generator = torch.Generator(device).manual_seed(0)

    def vectors(rows: int) -> Tensor:
        return normalize(torch.randn(rows, work.embedding_size, device=device, generator=generator), dim=1)

    query = vectors(work.batch_size)
    centers = vectors(min(work.dcc_size, MAX_SLOTS))
    scales = centers.abs().amax(1) / 100 if work.scaled else None
    values = (centers if scales is None else centers.div_(scales[:, None])).to(work.slot_type)
    return {
        "query": query,
        "positive": vectors(work.batch_size),
        "weights": query.new_full((work.batch_size,), 1 / work.batch_size),
        "slots": Slots(values, scales, torch.arange(len(centers), device=device)),
        "labels": torch.arange(work.batch_size, device=device),
    }


def _run(name: str, inputs: dict[str, Any], work: Workload) -> tuple[Tensor, Tensor]:
    """Return loss and gradient over several chunks: a single one would go to torch, even where the kernel is asked for."""
    query = inputs["query"].detach().requires_grad_()
    chunk = max(1, min(work.chunk, MAX_SLOTS // 2, work.dcc_size // 2))
    rest = {key: value for key, value in inputs.items() if key != "query"}
    loss = IMPLEMENTATIONS[name](query=query, **rest, margin=Margin("arcface", 0.5), scale=work.scale, chunk=chunk)
    (gradient,) = torch.autograd.grad(loss, query)
    return loss.detach(), gradient


def _difference(inputs: dict[str, Any], work: Workload) -> float:
    """Return the relative difference of loss or gradient, whichever is larger; NaN where one is."""
    pairs = zip(_run("triton", inputs, work), _run("chunked", inputs, work), strict=True)
    differences = [(actual - expected).norm() / expected.norm() for actual, expected in pairs]
    return float(torch.stack(differences).max())  # Python's max would pass over a NaN that comes second


def _seconds(name: str, inputs: dict[str, Any], work: Workload) -> float:
    """Return the time of one forward and backward pass: the best of a few."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        _run(name, inputs, work)[0].item()
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
