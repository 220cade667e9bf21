"""What smaller exports cost: accuracy, likeness, size and speed of a model as fp32, fp16 and int8 ONNX files.

    attfc-train --preset tiny --data ../shared/data/lfw_train --set head.kind=full_fc --set run.steps=240 \
        --set head.margin.ramp_images=12800 --output runs/export
    python -m benchmarks.export runs/export --calibrate ../shared/data/lfw_train --val ../shared/data/lfw_fold8.bin

int8's ranges are measured on images that were trained on; the accuracy is on people who were not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attfc_train.commands.export import drawn
from attfc_train.evaluate.embed import embed
from attfc_train.evaluate.load import load_verification
from attfc_train.evaluate.pairs import squared_distances, verify
from attfc_train.evaluate.verification_set import VerificationSet
from attfc_train.export.model_file import Encoder, open_network
from attfc_train.export.program import BATCH_SIZES
from attfc_train.export.variants import CALIBRATION_IMAGES
from attfc_train.export.write import LEAST_COSINE, export
from attfc_train.profile.file import load_profile
from benchmarks.provenance import provenance, quantiles, save

CPU = torch.device("cpu")
REPEATS = 15


def unit_embeddings(network: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """Return embeddings of verification, float64 [N, D] of length 1."""
    rows = embed(network, images, batch_size=max(BATCH_SIZES), device=CPU).embeddings.astype(np.float64)
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def figures(network: nn.Module, verification_set: VerificationSet, size: int, original: NDArray[np.float64]) -> dict[str, Any]:
    """Return accuracy on a set, likeness to the original's embeddings, and the decisions that are other ones.

    Both models decide at their own threshold, the mean of the ten folds'.
    """
    rows = verification_set.pairs.reshape(-1)
    own = unit_embeddings(network, verification_set.images(size))
    result, before = (verify(table[rows], verification_set.same) for table in (own, original))
    decided = squared_distances(own[rows]) < result.threshold
    decided_before = squared_distances(original[rows]) < before.threshold
    cosines = (own * original).sum(axis=1)
    return {
        "accuracy": result.accuracy,
        "standard_error": result.standard_error,
        "auc": result.auc,
        "tar_at_far": {f"{far:g}": value for far, value in result.tar.items()},
        "other_decisions": int((decided != decided_before).sum()),
        "num_pairs": result.num_pairs,
        "cosine": {"least": float(cosines.min()), "mean": float(cosines.mean())},
    }


def seconds_per_image(network: nn.Module, size: int) -> dict[str, float]:
    """Return the time of an image in batches of 32, without its mirror image."""
    images = torch.rand(max(BATCH_SIZES), 3, size, size)
    times = []
    with torch.inference_mode():
        network(images)
        for _ in range(REPEATS):
            start = time.perf_counter()
            network(images)
            times.append((time.perf_counter() - start) / len(images))
    return quantiles(times)


def measured(encoder: Encoder, calibration: Tensor, verification_set: VerificationSet) -> dict[str, Any]:
    """Return the figures of torch and of every precision."""
    size = encoder.image_size
    original = unit_embeddings(encoder.network, verification_set.images(size))
    table = {
        "torch": {
            **figures(encoder.network, verification_set, size, original),
            "seconds_per_image": seconds_per_image(encoder.network, size),
        }
    }
    with tempfile.TemporaryDirectory() as folder:
        for precision in LEAST_COSINE:
            written = export(encoder, Path(folder, f"{precision}.onnx"), precision, calibration)  # type: ignore[arg-type]  # its keys
            row = figures(written.network, verification_set, size, original)
            speed = seconds_per_image(written.network, size)
            table[precision] = {**row, "bytes": written.size, "cosine_at_export": written.cosine, "seconds_per_image": speed}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--calibrate", required=True, help="data set for int8's ranges")
    parser.add_argument("--val", required=True, help="verification set")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = open_network(options.run)
    profile = load_profile(options.run / "profile.json")
    calibration = drawn(options.calibrate, size=encoder.image_size, count=CALIBRATION_IMAGES)
    verification_set = load_verification(options.val, encoder.image_size)
    content = {
        "provenance": provenance(),
        "model": {**profile.model.model_dump(), "head": profile.head.kind, "steps": profile.total_steps},
        "trained_on": Path(profile.data.path or "").name,
        "calibrated_on": f"{CALIBRATION_IMAGES} images of {Path(options.calibrate).name}",
        "verified_on": Path(options.val).name,
        "results": measured(encoder, calibration, verification_set),
    }
    print(save("export.json", json.dumps(content, indent=1) + "\n"))


if __name__ == "__main__":
    main()
