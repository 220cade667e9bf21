"""What `prepare_device` and the probe of real steps do on a CUDA device before a run takes anything."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from attfc_planner.memory.overheads import CUBLAS_WORKSPACE, CUBLAS_WORKSPACE_LARGE
from attfc_planner.memory.run import CUBLAS_HANDLES
from attfc_train.data.batch import Batch
from attfc_train.document import Precision
from attfc_train.optim.precision import prepare_device
from attfc_train.timing.arithmetic import arithmetic_of
from tests.train.profiles import small_profile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_operators_are_held_against_the_arithmetic_that_torch_may_use(precision: Precision) -> None:
    """Catches TF32 that is assumed and not set, or set and not assumed; the last is torch's default for convolutions."""
    former = torch.get_float32_matmul_precision()
    try:
        prepare_device(torch.device("cuda"), precision)
        products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(former)
    assert arithmetic_of("loss", precision, has_tf32=True) == ("tf32" if products else "fp32")
    assert arithmetic_of("conv", "fp32", has_tf32=True) == ("tf32" if convolutions else "fp32")


# cuBLAS makes its workspaces once a process.
SCRIPT = """
import json, torch
from attfc_train.optim.precision import prepare_device
cuda = torch.device("cuda")
held = []
prepare_device(cuda, "bf16")
held.append(torch.cuda.memory_allocated())
for dtype in (torch.float32, torch.bfloat16):
    weight = torch.zeros(64, 64, device=cuda, dtype=dtype, requires_grad=True)
    (weight @ weight).sum().backward()
    del weight
    held.append(torch.cuda.memory_allocated())
print(json.dumps(held))
"""


# Catches a wake-up of one thread only: the first backward would put autograd's workspace among the step's tensors.
def test_cublas_takes_its_workspaces_before_anything_else() -> None:
    child = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    held = json.loads(child.stdout.splitlines()[-1])
    workspace = CUBLAS_WORKSPACE_LARGE if torch.cuda.get_device_capability()[0] >= 9 else CUBLAS_WORKSPACE
    assert held == [CUBLAS_HANDLES * workspace] * 3


def test_the_probes_images_lie_in_pinned_memory_of_the_host() -> None:
    batch = Batch.random(small_profile("identity-30%", "bf16"), torch.device("cuda"))
    for tensor in (batch.query, batch.references, batch.flips, batch.labels):
        assert tensor.device.type == "cpu"
        assert tensor.is_pinned()
