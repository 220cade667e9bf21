"""The kernel compiles for the GPUs it is meant for, which needs none of them: Triton brings the assembler.

The interpreter accepts Python that the compiler does not. In a process of its own, where the kernel is not interpreted.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")

COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from attfc_train.losses import triton as kernel

def compiled(capability, slot_type, pointer, dim, scaled, shifted, tile, apart, stages):
    jitted = kernel._score.fn
    names, operand = jitted.arg_names, kernel._TRITON_TYPE[kernel._OPERAND[slot_type]]
    block, padded = kernel._block_and_padding(dim, slot_type)
    constants = dict(DIM=dim, PADDED=padded, BLOCK=block, SCALED=scaled, SHIFTED=shifted, TYPE=operand, PRECISION="ieee")
    constants |= dict(TILE=tile, APART=apart)
    signature = dict.fromkeys(names, "*fp32") | dict.fromkeys(constants, "constexpr") | dict(
        query="*" + str(operand), slots=pointer, slot_labels="*i64", labels="*i64",
        num="i32", size="i32", per_split="i32", factor="fp32",
    )
    aligned = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(jitted, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    options = dict(num_warps=8, num_stages=stages, enable_fp_fusion=True)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

hopper = compiled(90, torch.bfloat16, "*bf16", 512, False, False, 64, True, 2)
assert "wgmma" in hopper.asm["ptx"]
assert hopper.metadata.shared <= 227 * 1024
ampere = compiled(80, torch.int8, "*i8", 128, True, True, 32, False, 2)
assert "mma.sync" in ampere.asm["ptx"]
assert ampere.metadata.shared <= 163 * 1024
"""


@pytest.mark.slow
def test_it_compiles_to_tensor_core_instructions() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    child = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
