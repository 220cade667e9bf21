"""A kind of head is added, not threaded through: its folder and one line in the dict, and every command knows it.

The packages are copied and the head is put into the copy; no file of the copy but ``heads/kinds.py`` is changed. It trains, is
planned, explained, reported and tuned by the commands that users type.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.modules import PACKAGES, ROOT

pytestmark = pytest.mark.slow

SETTINGS = '''
"""Settings of a softmax over cosines with smoothed labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import HeadSettings, MarginSettings


class CosineSoftmaxSettings(HeadSettings):
    """Softmax over cosines with smoothed labels and no margin."""

    kind: Literal["cosine_softmax"] = "cosine_softmax"
    margin: MarginSettings = MarginSettings()
    smoothing: float = Field(0.1, ge=0, lt=1)

    @classmethod
    def knobs(cls) -> tuple[Knob, ...]:
        """Return the smoothing."""
        return (
            Knob(
                "smoothing",
                (0.0, 0.1, 0.2),
                "head",
                place=10,
                affects=frozenset({"accuracy"}),
                scales=True,
                stand_in=0.1,
                column="smooth",
                cell=lambda head: f"{head.smoothing:g}",
                phrase=lambda head: f"smoothing {head.smoothing:g}",
                row=lambda head: ("smoothing", f"{head.smoothing:g}"),
            ),
        )

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Add the smoothing."""
        return (*super().rows(), ("smoothing", f"{self.smoothing:g}"))
'''

HEAD = '''
"""Softmax over cosines with smoothed labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from attfc_train.heads.cosine_softmax.settings import CosineSoftmaxSettings
from attfc_train.heads.head import Head, HeadOutput
from attfc_train.heads.kinds import HeadSite
from attfc_train.losses.margin import Margin


class CosineSoftmaxHead(Head):
    """A center per identity, no margin."""

    def __init__(self, num_ids: int, embedding_size: int, scale: float, smoothing: float, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_ids, embedding_size, device=device).mul_(0.01))
        self.scale, self.smoothing = scale, smoothing

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """See `Head.forward`."""
        query = normalize(features.float(), dim=1)
        logits = self.scale * query @ normalize(self.weight, dim=1).t()
        losses = cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)
        return HeadOutput((losses * weights).sum(), query.detach()[:0])


def build(settings: CosineSoftmaxSettings, site: HeadSite, device: torch.device) -> CosineSoftmaxHead:
    """Build the head for a run."""
    scale = settings.margin.scale
    return CosineSoftmaxHead(site.num_ids, site.embedding_size, scale, settings.smoothing, device)
'''

KIND = """    "cosine_softmax": HeadKind(CosineSoftmaxSettings, "attfc_train.heads.cosine_softmax.head"),
"""
IMPORT = "from attfc_train.heads.cosine_softmax.settings import CosineSoftmaxSettings\n"

DATA = ("--data", "synthetic:80x6", "--backbone", "tiny", "--image-size", "32", "--epochs", "10")


@dataclass(frozen=True)
class Command:
    """Runs commands of the copy in a folder of its own; returns what they print."""

    tree: Path
    folder: Path

    def __call__(self, module: str, *arguments: str) -> str:
        cache = str(self.folder / "cache")
        environment = {**os.environ, "PYTHONPATH": str(self.tree), "ATTFC_CACHE_DIR": cache, "COLUMNS": "120"}
        line = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(line, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with the new kind."""
    tree = tmp_path_factory.mktemp("tree")
    for name in (*PACKAGES, "profiles"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tree / "attfc_train/heads/cosine_softmax"
    folder.mkdir()
    for name, content in (("__init__", '"""Cosine softmax."""\n'), ("settings", SETTINGS), ("head", HEAD)):
        (folder / f"{name}.py").write_text(content.lstrip())
    kinds = tree / "attfc_train/heads/kinds.py"
    text = kinds.read_text().replace("from attfc_train.heads.full_fc", IMPORT + "from attfc_train.heads.full_fc", 1)
    kinds.write_text(re.sub(r"(HEADS: dict\[str, HeadKind\] = \{\n)", rf"\1{KIND}", text))
    return tree


@pytest.fixture(scope="module")
def command(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tree, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def plan(command: Command) -> str:
    """The screen of a plan."""
    return command("attfc_planner.cli", "--gpu", "cpu", "--head", "cosine_softmax", *DATA, "--output", "best.json")


def document(command: Command, name: str) -> Any:
    return json.loads((command.folder / name).read_text())


def test_only_the_dict_was_changed(tree: Path) -> None:
    files = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    changed = [str(path) for path in files if (tree / path).read_bytes() != (ROOT / path).read_bytes()]
    assert changed == ["attfc_train/heads/kinds.py"]


def test_it_is_planned(command: Command, plan: str) -> None:
    profile = document(command, "best.json")
    assert profile["head"]["kind"] == "cosine_softmax"
    assert set(profile["search"]["knobs"]) == {"smoothing", "batch_size", "gradient_checkpointing", "accumulation", "precision"}
    assert "nothing is known of head 'cosine_softmax'" in profile["prediction"]["accuracy"]["source"]
    chosen = next(line for line in plan.splitlines() if "smoothing" in line)
    assert f"{profile['head']['smoothing']:g}" in chosen
    assert "smooth" in plan.split("Pareto front")[1]


CONTRACT = """
import pytest

from attfc_train.heads.cosine_softmax.settings import CosineSoftmaxSettings
from tests.contracts.head_contract import HeadContract


class TestAdded(HeadContract):
    @pytest.fixture
    def settings(self):
        return CosineSoftmaxSettings()
"""


def test_it_keeps_the_contract_of_heads(tree: Path, tmp_path: Path) -> None:
    """Catches a contract that only the shipped heads can keep."""
    (tmp_path / "test_contract.py").write_text(CONTRACT)
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        "test_contract.py",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tree), str(ROOT)))}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout


@pytest.mark.usefixtures("plan")
def test_it_is_explained_and_reported(command: Command) -> None:
    said = command("attfc_planner.cli", "explain", "best.json")
    assert "head cosine_softmax, of which nothing is known" in said
    command("attfc_planner.cli", "report", "best.json", "-o", "report.html")
    assert "smoothing" in (command.folder / "report.html").read_text()


@pytest.mark.usefixtures("plan")
def test_it_trains_and_goes_on(command: Command) -> None:
    short = ("--set", "run.steps=60", "--set", "optim.warmup_steps=5", "--set", "run.log_every=1")
    start = ("--profile", "best.json", "--data", "synthetic:80x6", "--device", "cpu", "--output", "run", *short)
    said = command("attfc_train.cli", *start)
    assert "cosine_softmax, batch" in said
    lines = [json.loads(line) for line in (command.folder / "run/log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "step"]
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert "is finished" in command("attfc_train.cli", "--resume", "run")


@pytest.mark.usefixtures("plan")
def test_it_is_tuned(command: Command) -> None:
    limits = ("--trials", "2", "--hours", "0.02")
    said = command(
        "attfc_planner.cli", "tune", "--gpu", "cpu", "--head", "cosine_softmax", *DATA, *limits, "--output", "tuned.json"
    )
    assert "smoothing" in said
    profile = document(command, "tuned.json")
    assert profile["head"]["kind"] == "cosine_softmax"
    assert profile["description"].startswith("Tuned on")
