"""Training profiles and GPU profiles: documents with other fields, and other texts of a document."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from attfc_planner import cli as planner
from attfc_planner.gpu.detect import find_gpu, torch_note
from attfc_train import cli as trainer
from attfc_train.errors import ProfileError
from attfc_train.optim import schedule
from attfc_train.profile.file import load_profile, profiles_folder, resolve_profile, with_overrides
from attfc_train.run.preflight import replan_command
from benchmarks.attack.documents import changed, text_of
from benchmarks.attack.formats.base import Format
from benchmarks.attack.formats.records import small_profile
from benchmarks.attack.oracle import judge_document
from benchmarks.attack.outcome import Kind

_SPARSE = 2**36


class _Documents(Format):
    """A JSON file that is made of one of several documents."""

    def __init__(self, folder: Path, documents: list[Any]) -> None:
        super().__init__(folder)
        self.documents = documents
        self.path = folder / "document.json"
        self.content = b""
        self.is_refused = False

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        document = random.choice(self.documents)
        what = ""
        if random.random() < 0.8:
            document, what = changed(random, document)
        try:
            self.content, how = text_of(random, document)
        except (ValueError, RecursionError):  # what JSON cannot say, such as 10**400 digits
            self.content, how = text_of(random, self.documents[0])
        self.path.write_bytes(self.content)
        if random.random() < 0.003:
            with self.path.open("r+b") as file:
                file.truncate(_SPARSE)
            how += ", sparse"
        return f"{what}; {how}"

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        return judge_document(self.content, taken)


class DamagedProfiles(_Documents):
    """A training profile, as a file and as ``--set`` assignments."""

    name = "profile"
    every = 10

    def __init__(self, folder: Path) -> None:
        presets = sorted((profiles_folder() / "presets").glob("*.json"))
        super().__init__(folder, [small_profile(), small_profile(), *(json.loads(path.read_text()) for path in presets)])

    def use(self) -> Any:
        """Override `Format`."""
        self.is_refused = True
        profile = load_profile(self.path)
        taken = profile.model_dump(mode="json")
        resolved = resolve_profile(profile, profile.data.num_ids or 8, profile.data.num_images or 24)
        # What a run asks of a profile before and between its steps.
        for step in (0, 1, resolved.total_steps - 1, resolved.total_steps):
            schedule.margin(resolved.head.margin, step)
        json.loads(resolved.model_dump_json())
        resolved.head.describe()
        replan_command(resolved)
        self.is_refused = False
        try:
            with_overrides(profile, [f"optim.batch_size={json.dumps(taken['optim']['batch_size'])}"])
        except ProfileError as error:
            raise AssertionError("a profile that is taken must be taken again") from error
        return taken

    def command(self) -> tuple[Callable[[], None], list[str]] | None:
        """Give a refused profile to the trainer: one that is taken might train for hours."""
        if not self.is_refused:
            return None
        output = str(self.folder / "run")
        return trainer.main, ["attfc-train", "--profile", str(self.path), "--output", output, "--device", "cpu"]


class DamagedGpuProfiles(_Documents):
    """A GPU profile, as ``--gpu FILE``."""

    name = "gpu profile"
    every = 10

    def __init__(self, folder: Path) -> None:
        cards = sorted((profiles_folder() / "gpus").glob("*.json"))[::8]
        super().__init__(folder, [json.loads(path.read_text()) for path in cards])

    def use(self) -> Any:
        """Override `Format`."""
        self.is_refused = True
        device, _ = find_gpu(str(self.path))
        taken = device.model_dump(mode="json")
        for field in ("memory_bandwidth_bytes_per_second", "fp32_flops", "pcie_bytes_per_second"):
            device.ceiling(field)
        torch_note(device)
        assert device.source
        self.is_refused = False
        return taken

    def command(self) -> tuple[Callable[[], None], list[str]] | None:
        """Give a refused profile to the planner: a plan takes seconds."""
        if not self.is_refused:
            return None
        return planner.main, ["attfc-plan", "--gpu", str(self.path), "--ids", "1000"]
