"""Short measurements of a device's real ceilings: matrix products, memory copies and host-to-device copies.

Of a GPU also its capacity, and whether torch's allocator has expandable segments there.

A probe repeats its work for a fraction of a second after a warm-up and reports the best rate; all together take under
three seconds. `attfc_planner.gpu.detect` runs this module as a program, so that nothing of it stays in the planner's process.
Run ``python -m attfc_planner.gpu.probes --device cpu`` to measure this machine.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from attfc_planner.gpu.measurement_cache import EXPANDABLE
from attfc_planner.gpu.profile import TENSOR_FIELD
from attfc_train.document import Precision
from attfc_train.run.segments import claim_segments, has_expandable_segments
from attfc_train.timing.ceilings import copy_rate, matmul_rate


def probe(device: torch.device, precisions: tuple[Precision, ...]) -> dict[str, float]:
    """Measure rates and return them by `GpuProfile` field name; of a GPU also ``capacity_bytes`` and `EXPANDABLE`.

    Args:
        device: ``cuda`` or ``cpu``.
        precisions: those whose matrix-product rate is wanted.
    """
    claim_segments(device)  # where the driver has no expandable segments, nothing else could be measured
    rates: dict[str, float] = {TENSOR_FIELD[name]: matmul_rate(device, name) for name in precisions}
    rates["memory_bandwidth_bytes_per_second"] = copy_rate(device, device)
    if device.type == "cuda":
        rates["pcie_bytes_per_second"] = copy_rate(torch.device("cpu"), device)
        rates["capacity_bytes"] = torch.cuda.mem_get_info(device)[1]
        rates[EXPANDABLE] = float(_is_expandable(device))
    return rates


def _is_expandable(device: torch.device) -> bool:
    held = torch.empty(1, device=device)  # something must be allocated
    return held.is_cuda and has_expandable_segments()


def main() -> None:
    """Print rates as JSON; exit code 1 where the device cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m attfc_planner.gpu.probes", description=main.__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    parser.add_argument("--precisions", default="fp32", help="comma-separated: fp32, fp16, bf16")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device")
    sys.stdout.write(json.dumps(probe(torch.device(given.device), tuple(given.precisions.split(",")))) + "\n")


if __name__ == "__main__":
    main()
