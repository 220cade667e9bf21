"""Memory that no trace can see: contexts, workspaces, other processes, headroom. Every figure says where it is from.

A GPU profile whose `measured` has a figure by a name of `attfc_planner.gpu.calibration` replaces the table's or the rule's:
that is how a calibration on the device itself arrives here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attfc_planner.gpu.calibration import CONTEXT, CONVOLUTION_FACTOR, CUBLAS, HEADROOM, HEADROOM_SHARE, WORKSPACE_SHARE
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.gpu.versions import installed_version
from attfc_planner.memory.run import CUBLAS_HANDLES
from attfc_train.profile.prediction import NCCL_BUFFERS, MemoryTerm
from attfc_train.profile.profile import NUM_DRAWN_PAIRS, TrainProfile
from attfc_train.units import KIB, MIB, Bytes

CUDA_CONTEXT: Bytes = 600 * MIB
"""Upper default. Seen: 256 MiB (RTX 3090, torch 2.7, InvokeAI#9413), 274 MiB lazy and 636 MiB eager (pytorch#86509), 300 to
400 MiB (pytorch#107667, #109888), 426 MiB (RTX 6000 Ada, torch 2.10, unsloth-zoo#1053)."""

CUBLAS_WORKSPACE: Bytes = 8320 * KIB
"""``:4096:2:16:8``, PyTorch's default up to Ada (pytorch#95668)."""
CUBLAS_WORKSPACE_LARGE: Bytes = 32 * MIB
"""sm_90 and later (pytorch#175344)."""

LEAST_CONVOLUTION_WORKSPACE: Bytes = 64 * MIB
LEAST_HEADROOM: Bytes = 512 * MIB
HEADROOM_SHARE_UNCALIBRATED = 0.06

CPU_PROCESS: Bytes = 320 * MIB
"""Python with torch's CPU build imported (230 MiB resident, torch 2.13), and its threads and compiled kernels."""
CUDA_BUILD_PROCESS: Bytes = 360 * MIB
"""A CUDA build of torch adds this, device or none (665 MiB in all, torch 2.12)."""
CHECKPOINTING_PROCESS: Bytes = 200 * MIB
"""torch's compiler, which `torch.utils.checkpoint` imports at its first call though nothing is compiled (torch 2.13)."""
CPU_WORKSPACE_SHARE = 0.6
"""oneDNN's scratch and reordered copies, and glibc's fragmentation, as a share of the tensors that come and go within a step.
Sixteen runs of tiny, mbf, r18 and r50 (51 to 1142 MiB of tensors, fp32, one thread, torch 2.13): with it the process's peak is
predicted to within -1 and +22 %. Kept tensors (weights, momentum, the container) cost nothing beside themselves."""
LEAST_CPU_HEADROOM: Bytes = 256 * MIB


def convolution_workspaces(moved: NDArray[np.int64], gpu: GpuProfile) -> NDArray[np.int64]:
    """Return the bytes that each convolution takes while it runs.

    cuDNN's choice is not known before the card was asked. Uncalibrated rule: as much as its input and output, at least
    64 MiB; with less room cuDNN chooses a slower way, it does not fail. A calibration multiplies it by a factor.

    Args:
        moved: bytes of the input and the output of each convolution.
    """
    if gpu.kind == "cpu":
        return np.zeros_like(moved)
    rule = uncalibrated_workspaces(moved)
    factor = _measured(gpu, CONVOLUTION_FACTOR)
    return rule if factor is None else np.rint(factor * rule).astype(np.int64)


def uncalibrated_workspaces(moved: NDArray[np.int64]) -> NDArray[np.int64]:
    """Apply the rule of `convolution_workspaces` for a GPU that was not calibrated."""
    return np.maximum(moved, LEAST_CONVOLUTION_WORKSPACE)


def convolution_source(gpu: GpuProfile) -> str:
    """Return where the figures of `convolution_workspaces` are from."""
    rule = "as much as the convolution's input and output, at least 64 MiB"
    factor = _measured(gpu, CONVOLUTION_FACTOR)
    return f"rule: uncalibrated, {rule}" if factor is None else f"{_source(gpu)}: {factor:g} times {rule}"


def cublas_workspace(gpu: GpuProfile) -> Bytes:
    """Return the bytes that each of cuBLAS's handles takes from the allocator."""
    measured = _measured(gpu, CUBLAS)
    if gpu.kind == "cpu":
        return 0
    if measured is not None:
        return round(measured / CUBLAS_HANDLES)
    return CUBLAS_WORKSPACE_LARGE if _has_large_workspace(gpu) else CUBLAS_WORKSPACE


def cublas_source(gpu: GpuProfile) -> str:
    """Return where the figure of `cublas_workspace` is from."""
    if _measured(gpu, CUBLAS) is not None:
        return _source(gpu)
    capability = "9.0 and later" if _has_large_workspace(gpu) else "below 9.0"
    return f"table: cuBLAS, a handle a thread on compute capability {capability}"


def unseen_terms(profile: TrainProfile, gpu: GpuProfile, passing: Bytes) -> list[MemoryTerm]:
    """Return the terms beside the step's tensors and the headroom.

    Args:
        passing: bytes of the tensors that come and go within a step, at its peak.
    """
    if gpu.kind == "cuda":
        terms = [context(gpu), *_exchange_buffers(profile, gpu)]
    else:
        terms = [_process(profile, gpu), _cpu_workspace(passing, gpu), _host_data(profile)]
    if gpu.foreign_bytes:
        who = ", ".join(gpu.holders) or "other processes on the device"
        terms.append(MemoryTerm(name="foreign", bytes=gpu.foreign_bytes, source=f"measured: {who}"))
    return terms


def headroom(needed: Bytes, gpu: GpuProfile) -> MemoryTerm:
    """Return the term that is left free for everything that the model does not know.

    Args:
        needed: the sum of all other terms.
    """
    # max(least, share * needed), with both figures from the residuals of a calibration, or else stated.
    measured = _measured(gpu, HEADROOM)
    if measured is not None:
        size = max(int(measured), round((_measured(gpu, HEADROOM_SHARE) or 0) * needed))
        source = gpu.calibration.headroom_source if gpu.calibration else _source(gpu)
        return MemoryTerm(name="headroom", bytes=size, source=source)
    least = LEAST_HEADROOM if gpu.kind == "cuda" else LEAST_CPU_HEADROOM
    rule = f"rule: uncalibrated, at least {least // MIB} MiB or {HEADROOM_SHARE_UNCALIBRATED:.0%}"
    return MemoryTerm(name="headroom", bytes=max(least, round(HEADROOM_SHARE_UNCALIBRATED * needed)), source=rule)


def _measured(gpu: GpuProfile, name: str) -> float | None:
    return (gpu.measured or {}).get(name)


def _source(gpu: GpuProfile) -> str:
    return gpu.calibration.memory_source if gpu.calibration else "measured: on this device"


def _has_large_workspace(gpu: GpuProfile) -> bool:
    return (gpu.compute_capability or 0) >= 9


def context(gpu: GpuProfile) -> MemoryTerm:
    """Return what a process holds of a CUDA device before its first tensor."""
    measured = _measured(gpu, CONTEXT)
    if measured is not None:
        return MemoryTerm(name="context", bytes=int(measured), source=_source(gpu))
    return MemoryTerm(name="context", bytes=CUDA_CONTEXT, source="table: CUDA context, upper default of published figures")


def _exchange_buffers(profile: TrainProfile, gpu: GpuProfile) -> list[MemoryTerm]:
    """Return what NCCL holds beside torch's allocator; nothing on one GPU."""
    if profile.run.gpus == 1:
        return []
    links = gpu.links_among(profile.run.gpus)
    return [MemoryTerm(name=NCCL_BUFFERS, bytes=links.nccl_bytes, source=f"table: NCCL's buffers for {links.name}")]


def _process(profile: TrainProfile, gpu: GpuProfile) -> MemoryTerm:
    checkpointing = profile.model.gradient_checkpointing
    compiler, also = (CHECKPOINTING_PROCESS, ", and its compiler, which checkpointing imports") if checkpointing else (0, "")
    measured = _measured(gpu, CONTEXT)
    if measured is not None:
        return MemoryTerm(name="context", bytes=int(measured) + compiler, source=_source(gpu) + also)
    build = 0 if (installed_version("torch") or "").endswith("+cpu") else CUDA_BUILD_PROCESS
    rule = f"rule: a Python process with torch loaded{also}"
    return MemoryTerm(name="context", bytes=CPU_PROCESS + build + compiler, source=rule)


def _cpu_workspace(passing: Bytes, gpu: GpuProfile) -> MemoryTerm:
    measured = _measured(gpu, WORKSPACE_SHARE)
    share = CPU_WORKSPACE_SHARE if measured is None else measured
    rule = f"{share:.0%} of the tensors that come and go, for oneDNN's copies and the C allocator"
    source = f"rule: {rule}" if measured is None else f"{_source(gpu)}: {rule}"
    return MemoryTerm(name="workspace", bytes=round(share * passing), source=source)


def _host_data(profile: TrainProfile) -> MemoryTerm:
    """Return the loader's batches, its cache of decoded images and the verification sets, which lie in a CPU's own memory."""
    data = profile.data
    image = 3 * profile.model.image_size**2  # bytes: uint8 RGB
    batches = data.prefetch_batches * profile.optim.batch_size * (1 + profile.num_references) * image
    cache = min(data.cache_bytes, data.num_images * image) if data.num_images else 0
    verification = len(profile.run.val) * 2 * NUM_DRAWN_PAIRS * image
    source = "rule: prefetched batches, the cache of decoded images and the verification sets"
    return MemoryTerm(name="data", bytes=batches + cache + verification, source=source)
