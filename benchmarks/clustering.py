"""How well and how fast faces are clustered: online (OGMC) beside DBSCAN and HDBSCAN of scikit-learn, on held-out people.

    attfc-train --preset tiny --data ../shared/data/lfw_train@0:520 --set head.kind=full_fc --output runs/clustering
    python -m benchmarks.clustering --data ../shared/data/lfw_train --model runs/clustering

The people of the data set are in three parts: the first 45 % are trained on, where no --model is given; on the next 20 % each
method chooses among 60 settings of its own the one with the best mean of pairwise F and BCubed F; the rest, whom neither
training nor choice has seen, is reported. What is online depends on the order of the faces: the figures are means over random
orders. Seconds are those of clustering alone, after a first call that warms up.

HDBSCAN is tried without ``cluster_selection_epsilon``: scikit-learn 1.9.1 fails on it with NumPy 2.4 (a TypeError in
``traverse_upwards``).
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_train.cluster.online import OnlineClustering, unit_vectors
from attfc_train.cluster.scores import bcubed, pairwise
from attfc_train.cluster.settings import ClusterSettings
from attfc_train.commands.cluster_streams import ImageStream
from attfc_train.data.source import open_dataset
from attfc_train.export.model_file import Encoder, open_encoder
from benchmarks.provenance import provenance, quantiles, save

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Setting: TypeAlias = dict[str, Any]
Method: TypeAlias = Callable[..., Ints]
"""Returns a label for each unit vector, -1 for none, from the vectors and a setting."""

DISTANCES = tuple(round(0.25 + 0.05 * step, 2) for step in range(20))
SIZES = (2, 3, 5)
SHARES = (0.45, 0.65)
"""Of the identities: where those for the choice begin, and those that are reported."""
ORDERS = 5
REPEATS = 5
NEEDS = "scikit-learn"
MISSING = f"no package '{NEEDS}': pip install 'attfc[clustering]'"


def online(features: Floats, threshold: float, robust: int = 5, reach: float = 1.0) -> Ints:
    """Return the labels of attfc's clustering.

    Args:
        reach: how far connections go beyond the threshold; 1: in the proportion of the defaults, 0: no farther.
    """
    defaults = ClusterSettings()
    connect, weak = (1 + reach * (each / defaults.fuse - 1) for each in (defaults.connect, defaults.connect_weak))
    settings = ClusterSettings(threshold, threshold * connect, threshold * weak, robust)
    clustering = OnlineClustering(settings, features.shape[1])
    clustering.add(features)
    return clustering.labels()


def dbscan(features: Floats, eps: float, min_samples: int) -> Ints:
    """Return the labels of scikit-learn's DBSCAN."""
    from sklearn.cluster import DBSCAN

    labels: Ints = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(features).astype(np.int64)
    return labels


def hdbscan(features: Floats, min_cluster_size: int, min_samples: int, cluster_selection_method: str = "eom") -> Ints:
    """Return the labels of scikit-learn's HDBSCAN."""
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=min_samples,
        cluster_selection_method=cluster_selection_method,
        copy=True,
    )
    labels: Ints = model.fit_predict(features).astype(np.int64)
    return labels


METHODS: dict[str, Method] = {"online": online, "dbscan": dbscan, "hdbscan": hdbscan}
AT_SCALE: dict[str, Setting] = {
    "online": {"threshold": 0.7},
    "dbscan": {"eps": 0.9, "min_samples": 2},
    "hdbscan": {"min_cluster_size": 2, "min_samples": 1},
}
"""For made faces, of whom those of one person are 0.72 apart and others 1.41."""


def settings() -> dict[str, list[Setting]]:
    """Return what each method chooses from, equally many."""
    found: dict[str, list[Setting]] = {
        "online": [
            {"threshold": distance, "robust": size, "reach": reach}
            for distance in DISTANCES[4::2]
            for size in (2, 5)
            for reach in (0.0, 0.5, 1.0)
        ]
        + [{"threshold": distance, "robust": 2, "reach": 0.5} for distance in DISTANCES[5:17]],
        "dbscan": [{"eps": distance, "min_samples": size} for distance in DISTANCES for size in SIZES],
        "hdbscan": [
            {"min_cluster_size": size, "min_samples": samples, "cluster_selection_method": word}
            for size in range(2, 7)
            for samples in range(1, 7)
            for word in ("eom", "leaf")
        ],
    }
    assert len({len(each) for each in found.values()}) == 1
    return found


def scores(labels: Ints, truth: Ints) -> dict[str, float]:
    """Return both scores; a face in no cluster counts as one of its own."""
    pairs, cubed = pairwise(labels, truth), bcubed(labels, truth)
    found = {"pairwise_f": pairs.f, "pairwise_precision": pairs.precision, "pairwise_recall": pairs.recall}
    return found | {"bcubed_f": cubed.f, "bcubed_precision": cubed.precision, "bcubed_recall": cubed.recall}


def merit(found: dict[str, float]) -> float:
    """Return what the settings are chosen by."""
    return (found["pairwise_f"] + found["bcubed_f"]) / 2


def chosen(method: Method, features: Floats, truth: Ints, grid: Sequence[Setting]) -> Setting:
    """Return the best setting; of equal ones the first."""
    return max(grid, key=lambda setting: merit(scores(method(features, **setting), truth)))


def measured(method: Method, features: Floats, truth: Ints, setting: Setting, repeats: int) -> dict[str, Any]:
    """Return scores over random orders, and seconds a face."""
    method(features[:50], **setting)
    found = []
    seconds = []
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(truth))
        start = time.perf_counter()
        labels = method(features[order], **setting)
        seconds.append((time.perf_counter() - start) / len(truth))
        found.append(scores(labels, truth[order]))
    means = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
    spread = {name: float(np.ptp([row[name] for row in found])) for name in ("pairwise_f", "bcubed_f")}
    return {**means, "spread_over_orders": spread, "seconds_per_face": quantiles(seconds)}


def compared(choice: tuple[Floats, Ints], report: tuple[Floats, Ints], grids: dict[str, list[Setting]]) -> dict[str, Any]:
    """Return for each method its setting, chosen on the one part, and what it reaches on the other."""
    results: dict[str, Any] = {}
    shuffled = np.random.default_rng(ORDERS).permutation(len(choice[1]))
    for name, method in METHODS.items():
        if name != "online" and not is_installed():
            results[name] = {"skipped": MISSING}
            continue
        setting = chosen(method, choice[0][shuffled], choice[1][shuffled], grids[name])
        results[name] = {"setting": setting, **measured(method, *report, setting, ORDERS)}
    return results


def is_installed() -> bool:
    """Return whether scikit-learn is there."""
    return importlib.util.find_spec("sklearn") is not None


def scaled(sizes: Sequence[int], width: int = 512, images: int = 5) -> list[dict[str, Any]]:
    """Return seconds a face for so many made embeddings of people with `images` each, at the default settings."""
    rows = []
    for number in sizes:
        rng = np.random.default_rng(number)
        centres = rng.standard_normal((-(-number // images), width))
        truth = rng.permutation(np.arange(number) // images)
        # noise of length 0.6 beside a centre of length 1: cosines of 1 / (1 + 0.36) = 0.74 within an identity
        noise = 0.6 * rng.standard_normal((number, width)) / np.sqrt(width)
        features = unit_vectors(unit_vectors(centres)[truth] + noise)
        row: dict[str, Any] = {"faces": number, "identities": len(centres)}
        for name, method in METHODS.items():
            if name == "online" or is_installed():
                start = time.perf_counter()
                labels = method(features, **AT_SCALE[name])
                row[name] = {"seconds_per_face": (time.perf_counter() - start) / number, **scores(labels, truth)}
        rows.append(row)
    return rows


def embedded(spec: str, encoder: Encoder) -> tuple[Floats, Ints]:
    """Return the unit embeddings and the identities of a data set's images."""
    dataset = open_dataset(spec)
    chunks = list(ImageStream(spec, dataset, encoder).chunks(0))
    places = np.concatenate([chunk.places for chunk in chunks])
    features = unit_vectors(np.concatenate([chunk.features for chunk in chunks]))
    return features, dataset.index.labels_of(places)


def parts_of(spec: str) -> list[str]:
    """Return the parts of a data set: to train on, to choose on, to report."""
    num_ids = open_dataset(spec).index.num_ids
    cuts = [0, *(int(num_ids * share) for share in SHARES), num_ids]
    return [f"{spec}@{first}:{stop}" for first, stop in itertools.pairwise(cuts)]


def trained(spec: str, steps: int, folder: Path) -> Path:
    """Return the folder of a `tiny` model that is trained for so many steps."""
    command = [sys.executable, "-m", "attfc_train", "--preset", "tiny", "--data", spec, "--output", str(folder)]
    subprocess.run([*command, "--set", "head.kind=full_fc", "--set", f"run.steps={steps}"], check=True)
    return folder


def model_facts(encoder: Encoder) -> dict[str, Any]:
    """Return what is known of the model; people that it was trained on are easier than those whom it has never seen."""
    profile = encoder.profile
    if profile is None:
        return {"backbone": encoder.source.name, "steps": None, "trained_on": "what the file does not say"}
    return {"backbone": profile.model.backbone, "steps": profile.run.steps, "trained_on": str(profile.data.path)}


def page(results: dict[str, Any]) -> str:
    """Return the results as lines for the screen."""
    trained_on, report = results["model"]["trained_on"], results["data"]["report"]
    lines = [f"the model was trained on {trained_on}; the figures are of {report}"]
    lines += [f"{'':10}{'pairwise F':>12}{'BCubed F':>12}{'ms a face':>12}   setting"]
    for name, row in results["methods"].items():
        if "skipped" in row:
            lines.append(f"{name:10}  {row['skipped']}")
            continue
        milliseconds = 1e3 * row["seconds_per_face"]["p50"]
        setting = ", ".join(f"{name} {value}" for name, value in row["setting"].items())
        lines.append(f"{name:10}{row['pairwise_f']:12.4f}{row['bcubed_f']:12.4f}{milliseconds:12.3f}   {setting}")
    for row in results["scale"]:
        each = ", ".join(f"{name} {1e3 * row[name]['seconds_per_face']:.3f}" for name in METHODS if name in row)
        lines.append(f"{row['faces']:,} made faces of {row['identities']:,} people, ms a face: {each}")
    return "\n".join(lines)


def run(data: str, model: Path | None, steps: int, scale: Sequence[int], grids: dict[str, list[Setting]]) -> dict[str, Any]:
    """Return all results."""
    parts = parts_of(data)
    with tempfile.TemporaryDirectory() as folder:
        path = model or trained(parts[0], steps, Path(folder, "run"))
        encoder = open_encoder(path, "last", torch.device("cpu"))
        choice, report = (embedded(part, encoder) for part in parts[1:])
    sizes = {"choice": parts[1], "report": parts[2], "faces": len(report[1]), "identities": len(np.unique(report[1]))}
    facts = {
        "provenance": provenance(),
        "model": model_facts(encoder),
        "data": sizes,
        "settings_tried": len(grids["online"]),
    }
    return {**facts, "methods": compared(choice, report, grids), "scale": scaled(scale)}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/lfw_train", help="labelled faces")
    parser.add_argument("--model", type=Path, help="a run, .pt, .safetensors or .onnx; none: tiny is trained")
    parser.add_argument("--steps", type=int, default=600, help="of that training")
    parser.add_argument("--scale", type=int, nargs="*", default=[2000, 8000, 32000], help="numbers of made faces")
    parser.add_argument("--output", default="clustering.json", help="in benchmarks/results")
    options = parser.parse_args()
    results = run(options.data, options.model, options.steps, options.scale, settings())
    print(page(results))
    print(save(options.output, json.dumps(results, indent=2) + "\n"))


if __name__ == "__main__":
    main()
