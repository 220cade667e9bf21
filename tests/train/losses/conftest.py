"""Where there is no CUDA device the Triton kernel runs under its interpreter: triton must be told before it is imported."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
