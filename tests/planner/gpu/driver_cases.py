"""Plays drivers in a process that has the library of ``tests/standin/nvml_faults.c``.

Standard input is a JSON list of environments, standard output one of what `find_gpu` or the command line made of each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import Any
from unittest import mock

from attfc_planner import cli
from attfc_planner.gpu import detect
from attfc_planner.gpu.fingerprint import cuda_fingerprint
from attfc_planner.gpu.measurement_cache import Measured
from attfc_train.errors import AttfcError

RATES = {"fp32_flops": 1e11, "memory_bandwidth_bytes_per_second": 2e10, "pcie_bytes_per_second": 1e10}


def found(environment: dict[str, str]) -> dict[str, Any]:
    """Return what ``--gpu auto`` is with an environment, or how the command line refuses."""
    with mock.patch.dict(os.environ, environment):
        try:
            device, note = detect.find_gpu("auto")
            gpu = cuda_fingerprint()
        except AttfcError:
            return _refused()  # in this environment
    facts = {"uuid": gpu.uuid, "driver": gpu.driver} if gpu else {}
    return {"note": note or "", **device.model_dump(mode="json", exclude={"measured", "sources"}), **facts}


def _refused() -> dict[str, Any]:
    output = io.StringIO()
    errors = io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            cli.main()
        except SystemExit as left:
            code = left.code
    return {"code": code, "output": output.getvalue(), "error": errors.getvalue()}


def main() -> None:
    """Play all."""
    sys.argv[1:] = ["--ids", "4000"]
    rates = mock.patch.object(detect, "_measured", return_value=Measured(dict(RATES), "2026-01-02"))
    environments: list[dict[str, str]] = json.load(sys.stdin)
    with rates:
        sys.stdout.write(json.dumps([found(environment) for environment in environments]))


if __name__ == "__main__":
    main()
