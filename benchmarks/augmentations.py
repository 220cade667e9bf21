"""What augmentations cost, and how they look.

    python -m benchmarks.augmentations                # milliseconds a batch, benchmarks/results/augmentations.json
    python -m benchmarks.augmentations --device cuda
    python -m benchmarks.augmentations --picture      # docs/augmentations.png, of computed faces

Every augmentation is timed alone, on a batch of queries at 112 pixels, at whatever probability: it is computed for all images.
The share is that of a train step of as many images without augmentations, timed on a smaller batch where that is quicker. On a
CPU the seconds are those of one core at work, which other programs that run do not lengthen.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from attfc_train.augment.augmenter import Augmenter
from attfc_train.augment.kinds import AUGMENTATIONS, build_change
from attfc_train.augment.randomness import image_keys, uniforms
from attfc_train.data.batch import Batch
from attfc_train.data.formats.canvas import Pose
from attfc_train.data.formats.procedural_face import _IMAGE, render_face, traits_of
from attfc_train.data.sampling.hashing import hashed, uniform
from attfc_train.evaluate.align import aligned
from attfc_train.files import write_atomically
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.optim.precision import prepare_device
from attfc_train.profile.profile import ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from benchmarks.provenance import provenance, quantiles, save

SIZE: Final = 112
BATCH_SIZE: Final = 256
REPEATS: Final = 5
PICTURE: Final = Path(__file__).parents[1] / "docs" / "augmentations.png"
FACES: Final = 4
GAP: Final = 2
COLOURS: Final = 256


def main() -> None:
    """Measure, or draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augmentations", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="mbf", help="of the train step that the share is of")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--step-batch-size", type=int, default=64, help="of the train step, whose time is scaled up")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    if options.picture:
        print(f"{PICTURE}: {draw():,} bytes")
        return
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    result = measure(device, options.backbone, options.batch_size, options.step_batch_size, options.precision)
    name = "augmentations.json" if options.device == "cpu" else "augmentations_cuda.json"
    print(save(name, json.dumps(result, indent=1) + "\n"))
    print("\n".join(lines(result)))


def measure(device: torch.device, backbone: str, batch_size: int, step_batch_size: int, precision: Any) -> dict[str, Any]:
    """Return seconds of every augmentation, of all together, and of a train step."""
    prepare_device(device, precision)
    images = torch.rand(batch_size, 3, SIZE, SIZE, device=device) * 255
    keys = image_keys(0, 0, 1, batch_size, device)[0]
    cases = {name: {name: 1.0} for name in AUGMENTATIONS} | {"all": dict.fromkeys(AUGMENTATIONS, 1.0)}
    seconds = {}
    for name, probabilities in cases.items():
        augmenter = Augmenter(probabilities, SIZE, 0, device)
        seconds[name] = _timed(partial(augmenter, images, keys), device)
    of_a_step = _step_seconds(device, backbone, step_batch_size, precision)
    step = {name: value * batch_size / step_batch_size for name, value in of_a_step.items()}
    return {
        "provenance": provenance(device),
        "batch_size": batch_size,
        "image_size": SIZE,
        "backbone": backbone,
        "precision": precision,
        "step_batch_size": step_batch_size,
        "step_seconds": step,
        "seconds": seconds,
        "share_of_step": {name: each["p50"] / step["p50"] for name, each in seconds.items()},
    }


def lines(result: dict[str, Any]) -> list[str]:
    """Return the table for docs/training.md."""
    rows = [f"| augmentation | ms a batch of {result['batch_size']} | of a step |", "|---|---|---|"]
    for name, seconds in result["seconds"].items():
        rows.append(f"| {name} | {1000 * seconds['p50']:,.1f} | {result['share_of_step'][name]:.1%} |")
    step = result["step_seconds"]["p50"]
    return [*rows, f"a step ({result['backbone']}, {result['precision']}): {1000 * step:,.0f} ms"]


def _step_seconds(device: torch.device, backbone: str, batch_size: int, precision: Any) -> dict[str, float]:
    profile = TrainProfile(
        model=ModelSettings(backbone=backbone, image_size=SIZE),
        head=AttFCSettings(num_references=0),
        optim=OptimSettings(batch_size=batch_size),
        run=RunSettings(steps=1000, precision=precision),
    ).resolve(10_000)
    state = build(profile, device)
    batch = Batch.example(profile, device)
    return _timed(lambda: train_step(state, batch).loss, device, repeats=3)


def _timed(work: Callable[[], Tensor], device: torch.device, repeats: int = REPEATS) -> dict[str, float]:
    """Return quantiles of the seconds that `work` takes, after one run that is not counted."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = []
    for _ in range(1 + repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(clock() - begin)
    return quantiles(seconds[1:])


def draw() -> int:
    """Write the picture: a row a face, the face itself and then each augmentation, masks twice; return its bytes."""
    faces = torch.from_numpy(np.stack([_aligned_face(3 + 2 * place) for place in range(FACES)]))
    images = faces.permute(0, 3, 1, 2).to(torch.float32)
    columns = [images]
    for name in AUGMENTATIONS:
        change = build_change(name, SIZE, torch.device("cpu"))
        for seed in (1, 2) if name == "mask" else (1,):
            keys = image_keys(seed, 0, 1, FACES, torch.device("cpu"))[0]
            columns.append(change(images, uniforms(keys, name, change.draws)))
    sheet = _sheet(columns).quantize(COLOURS, dither=Image.Dither.NONE)
    write_atomically(PICTURE, lambda file: sheet.save(file, "PNG", optimize=True))
    return PICTURE.stat().st_size


def _sheet(columns: list[Tensor]) -> Image.Image:
    side = SIZE + GAP
    sheet = np.full((FACES * side - GAP, len(columns) * side - GAP, 3), 255, dtype=np.uint8)
    for column, images in enumerate(columns):
        for row, image in enumerate(images.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()):
            sheet[row * side : row * side + SIZE, column * side : column * side + SIZE] = image
    return Image.fromarray(sheet)


def _aligned_face(identity: int) -> NDArray[np.uint8]:
    """Return a computed face, cut out by its five points like a real one."""
    traits = traits_of(identity)
    chance = uniform(hashed(_IMAGE, identity, 0, np.arange(5)))
    signed = 2 * chance - 1
    pose = Pose(0.22 * signed[0], 1.0 + 0.10 * signed[1], 0.10 * signed[2], 0.10 * signed[3], 0.12 * signed[4])
    tip = traits.eye_height + 0.02 + traits.nose_length
    mouth = tip + traits.mouth_height
    points = np.array(
        [
            (-traits.eye_distance, traits.eye_height),
            (traits.eye_distance, traits.eye_height),
            (0, tip),
            (-traits.mouth_width, mouth),
            (traits.mouth_width, mouth),
        ]
    )
    a, b, c, d = pose.matrix
    size = 200
    placed = points @ np.array([[a, c], [b, d]]) + np.array([pose.shift_x, pose.shift_y])
    # Nine pixels are averaged into one: noise makes a PNG file large.
    pixels = render_face(identity, 0, 3 * size).reshape(size, 3, size, 3, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return aligned(pixels, (placed + 1) * size / 2 - 0.5, SIZE)


if __name__ == "__main__":
    main()
