"""The environment of a process on the stand-in device (`tests/standin`): the real CUDA torch on a card that is not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from attfc_train.units import GIB, MIB, Bytes

SOURCES = Path(__file__).parents[1] / "tests" / "standin"
CONTEXT: Bytes = 400 * MIB
"""Device memory that a process takes before its first tensor: a setting of the stand-in, not a measurement."""


def environment(card_bytes: Bytes, allocator: str, card_id: str) -> Mapping[str, str]:
    """Return the variables of a process on a stand-in card of its own, whose workspaces follow the planner's rule.

    Args:
        card_bytes: the card's memory, of which `CONTEXT` is taken by the process. allocator: ``PYTORCH_ALLOC_CONF``.

    Raises:
        SystemExit: the libraries are not built.
    """
    folder = Path(os.environ.get("FAKEGPU_LIB", SOURCES / "lib"))
    libraries = sorted(map(str, folder.glob("lib*.so.*")))
    if not libraries:
        raise SystemExit(
            f"there is no stand-in device in {folder}: run python tests/standin/build.py with a CUDA build of torch"
        )
    return {
        "LD_LIBRARY_PATH": str(folder),
        "LD_PRELOAD": ":".join(libraries),
        "FAKEGPU": "1",
        "FAKEGPU_ID": card_id,
        "FAKEGPU_GIB": repr(card_bytes / GIB),
        "FAKEGPU_CONTEXT_MIB": str(CONTEXT // MIB),
        "FAKEGPU_CONV_WORKSPACE": "rule",
        "FAKEGPU_ENGINES": "2",  # as cuDNN, which has a slower way without a workspace
        "PYTORCH_ALLOC_CONF": allocator,
    }


def forget(card_id: str) -> None:
    """Remove the shared memory in which the processes of a card count their bytes."""
    Path(f"/dev/shm/fakegpu-{os.getuid()}-{card_id}").unlink(missing_ok=True)
