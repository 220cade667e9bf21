"""The caches of the planner: traces and measurements."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from attfc_planner.gpu.measurement_cache import Measured, read_cached, write_cached
from attfc_planner.trace.affine import AffineTrace, HeadModel
from attfc_planner.trace.disk_cache import TraceCache
from attfc_planner.trace.evaluation import EvaluationModel
from attfc_planner.trace.history import HeadBytes, Trace
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost
from benchmarks.attack.documents import changed
from benchmarks.attack.formats.base import Format
from benchmarks.attack.formats.records import small_profile
from benchmarks.attack.mutations import mutated
from benchmarks.attack.oracle import judge_missing, same_bits
from benchmarks.attack.outcome import Kind


class DamagedTraces(Format):
    """Stored traces of all kinds."""

    name = "trace cache"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.profile = TrainProfile.model_validate(small_profile())
        self.cache = TraceCache(folder)
        self.values = _values()
        for value in self.values:
            self.cache.store(value, self.profile)
        files = {kind: next(folder.glob(f"{kind.__name__.lower()}-*.json.gz")) for kind in map(type, self.values)}
        self.clean = [(value, files[type(value)], files[type(value)].read_bytes()) for value in self.values]
        self.value, self.path, _ = self.clean[0]

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        self.value, self.path, content = random.choice(self.clean)
        roll = random.random()
        if roll < 0.3:  # a whole archive of other text
            text, what = mutated(random, gzip.decompress(content))
            damaged = gzip.compress(text, 1)
        elif roll < 0.6:
            document, what = changed(random, json.loads(gzip.decompress(content)))
            damaged = gzip.compress(_text(document), 1)
        elif roll < 0.602:
            what = "bomb"
            damaged = gzip.compress(bytes(3 * 10**8), 9)
        else:
            damaged, what = mutated(random, content)
        self.path.write_bytes(damaged)
        return f"{type(self.value).__name__}: {what}"

    def use(self) -> Any:
        """Override `Format`."""
        return self.cache.load(type(self.value), self.profile)

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        return judge_missing(self.value, taken, _same)


def _text(document: Any) -> bytes:
    try:
        return json.dumps(document).encode()
    except (ValueError, RecursionError):
        return b"[" * 10**5


def _same(left: Any, right: Any) -> bool:
    """Return whether two stored values are alike; lists and tuples are one in JSON."""
    if hasattr(left, "__dataclass_fields__"):
        names = left.__dataclass_fields__
        return type(left) is type(right) and all(_same(getattr(left, name), getattr(right, name)) for name in names)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    return same_bits(left, right)


def _values() -> list[Any]:
    costs = (OpCost("mm", "matmul", "forward", 10**9, 10**6, 2), OpCost("add", "elementwise", "loss", 0, 4096, 1))
    trace = Trace(
        events=(0, 1, ~0, 2, ~1, ~2),
        nbytes=np.array([512, 1024, 4096], np.int64),
        ops=("mm", "add", "mm"),
        phases=("forward", "loss", "backward"),
        categories=("activations", "loss", "gradients"),
        steps=(0, 3),
        costs=(costs, costs),
    )
    terms = np.arange(12, dtype=np.int64).reshape(3, 4)
    floats = np.linspace(0, 1, 24).reshape(2, 3, 4)
    head = HeadModel((("mm", "loss"), ("add", "loss"), ("mm", "update")), terms, costs, floats)
    affine = AffineTrace(trace, terms, costs, floats)
    return [trace, head, affine, EvaluationModel(trace, terms[:, :2].copy()), HeadBytes(12345)]


class DamagedMeasurements(Format):
    """Measured rates of a device."""

    name = "measurement cache"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "gpu-0123456789abcdef.json"
        rates = {"fp32_flops": 1e11, "fp16_flops": 2e11, "memory_bandwidth_bytes_per_second": 2e10}
        self.value = Measured(rates, datetime.now(UTC).date().isoformat())
        write_cached(self.path, self.value)
        self.clean = self.path.read_bytes()

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        if random.random() < 0.5:
            document, what = changed(random, json.loads(self.clean))
            self.path.write_bytes(_text(document))
        else:
            content, what = mutated(random, self.clean)
            self.path.write_bytes(content)
        return what

    def use(self) -> Any:
        """Override `Format`."""
        return read_cached(self.path, "cpu", ("fp32", "fp16"))

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        return judge_missing(self.value, taken, lambda left, right: left == right)
