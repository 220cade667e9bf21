"""Devices that no card of the catalogue stands for, by their names: a plan for the nearest card would be a wrong plan.

A laptop's chip bears a desktop card's number and has other memory, clocks and power; a part of a card has a part of its
memory; other makers' devices run no CUDA.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from attfc_train.errors import UsageError

_MEASURE = "On that machine --gpu auto measures it; elsewhere give a GPU profile file (docs/planning.md, Cards)."
_NVIDIA = "Give an NVIDIA card ('attfc-plan gpus' lists them), or cpu for this machine's processor."
_CUDA = "--gpu must be a device that runs CUDA"


@dataclass(frozen=True)
class OtherKind:
    """A kind of device that is not a card of the catalogue."""

    rule: str
    what: str
    """Follows the name in the message."""
    remedy: str
    pattern: re.Pattern[str]
    """Matches the names of the kind, in lower case."""


_KINDS = (
    OtherKind(
        "--gpu must be a desktop or data-centre card",
        "a laptop's chip, which has other memory, clocks and power than the card of that number",
        _MEASURE,
        re.compile(
            r"\blaptop\b|\bmobile\b|\bnotebook\b|\bmax[-\s]?q\b|[1-5]0[5-9]0\s?(ti|super)?\s?m\b"
            r"|\bmx[1-5][1-7]0\b|\b(rtx|gtx)[\s-]?(4050|3500[\s-]?ada|a3000)\b"  # sold in laptops alone
        ),
    ),
    OtherKind(
        "--gpu must be a whole card",
        "a part of one (MIG or vGPU)",
        _MEASURE,
        re.compile(r"\bmig\b|\bvgpu\b|\bgrid\b|\b\d+g\.\d+gb|-\d+[abcq]\b"),
    ),
    OtherKind(
        "--gpu must be a card with memory of its own",
        "a chip that shares its processor's",
        _MEASURE,
        re.compile(r"\bjetson\b|\borin\b|\bxavier\b|\btegra|\bthor\b|\bgb10\b|\bdgx spark\b"),
    ),
    OtherKind(
        _CUDA,
        "a device of AMD's",
        _NVIDIA,
        re.compile(r"\bamd\b|radeon|instinct|\brx[\s-]?\d{3,4}|\bmi[\s-]?\d{2,3}[ax]?\b|\brocm\b|\bgfx\d|\bw[67][5-9]00\b"),
    ),
    OtherKind(
        _CUDA,
        "a device of Apple's",
        _NVIDIA,
        re.compile(r"\bapple\b|\bmps\b|\bmetal\b|\bmac(book|\b)|^m[1-5](\s?-?(pro|max|ultra))?$"),
    ),
    OtherKind(
        _CUDA,
        "a device of Intel's",
        _NVIDIA,
        re.compile(r"\bintel\b|\barc\b|\bgaudi|\bhabana\b|\bxpu\b|\biris\b|\bponte vecchio\b"),
    ),
    OtherKind(
        _CUDA,
        "a TPU or another accelerator",
        _NVIDIA,
        re.compile(r"\btpu|\btrillium\b|\bironwood\b|\btrainium|\binferentia|\bnpu\b|\bascend\b|\bipu\b|\bcerebras\b"),
    ),
)


def refuse_other_devices(name: str) -> None:
    """Raise UsageError if `name` is that of a device that no card of the catalogue stands for."""
    for kind in _KINDS:
        if kind.pattern.search(name.lower()):
            raise UsageError(kind.rule, f"'{name}', {kind.what}", kind.remedy)
