"""Networks of the seed papers as their released code computed them: recorded values, and how weights are drawn for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

SEED = 20261128
EVAL_TOLERANCE = 2e-6
TRAIN_TOLERANCE = 2e-4


class Released:
    """A recording, and an encoder of ours with the weights that it was made with."""

    def __init__(self, path: Path, encoder: nn.Module) -> None:
        if not path.is_file():
            pytest.skip(f"{path.name} is not among the golden files")
        self.record: Any = np.load(path)
        self.encoder = encoder
        self.drawn_weights = weights = drawn(
            self.record["names"].tolist(), [json_shape(text) for text in self.record["shapes"].tolist()]
        )
        sums = dict(zip(self.record["names"].tolist(), self.record["checksum"].tolist(), strict=True))
        assert all(abs(float(value.double().sum()) - sums[name]) < 1e-4 for name, value in weights.items()), "drawn otherwise"
        self._load(weights)

    def _load(self, weights: dict[str, Tensor]) -> None:
        """Copy weights in their order of definition, parameters and running statistics apart, as MXNet lists them."""
        statistics = ("running_mean", "running_var", "moving_mean", "moving_var")
        ours = {True: list(self.encoder.named_parameters()), False: []}
        ours[False] = [each for each in self.encoder.named_buffers() if each[0].endswith(statistics)]
        theirs = {kind: [(n, w) for n, w in weights.items() if n.endswith(statistics) != kind] for kind in (True, False)}
        with torch.no_grad():
            for kind in (True, False):
                for (name, target), (other, source) in zip(ours[kind], theirs[kind], strict=True):
                    assert target.shape == source.shape, (name, other)
                    target.copy_(source)
            if "features_norm.weight" in weights:
                self.encoder.get_parameter("features.weight").fill_(1.0)

    @property
    def images(self) -> Tensor:
        """float32 [4, 3, 112, 112] in [-1, 1]."""
        return (torch.from_numpy(self.record["images_u8"]).float() / 255 - 0.5) / 0.5

    def check_eval(self) -> None:
        with torch.inference_mode():
            embeddings = self.encoder.eval()(self.images)
        assert (embeddings - torch.from_numpy(self.record["eval_out"])).abs().max() <= EVAL_TOLERANCE

    def check_train(self, pixel_scale: float, apart: tuple[str, ...] = ()) -> None:
        """One forward and backward pass in train mode.

        Args:
            pixel_scale: what the released network's gradient with respect to its input is of ours.
            apart: how parameters end whose gradients are not compared.
        """
        images = self.images.requires_grad_()
        embeddings = self.encoder.train()(images)
        assert (embeddings - torch.from_numpy(self.record["train_out"])).abs().max() <= TRAIN_TOLERANCE
        (embeddings * torch.from_numpy(self.record["loss_weights"])).sum().backward()
        assert images.grad is not None
        norm = float(images.grad.norm()) * pixel_scale
        assert norm == pytest.approx(float(self.record["input_grad_norm"]), rel=2e-3)
        theirs = self.record["param_grad_norm"]
        rounding = 1e-5 * float(np.nanmax(theirs))  # all that a bias has as gradient where a BatchNorm follows
        for (name, parameter), norm in zip(self.encoder.named_parameters(), theirs.tolist(), strict=True):
            assert parameter.requires_grad == (norm == norm), name  # not a number where it is frozen
            if parameter.grad is not None and not any(map(name.endswith, apart)):
                assert float(parameter.grad.norm()) == pytest.approx(norm, rel=5e-3, abs=rounding), name

    def statistics_error(self) -> tuple[float, float]:
        """Largest error of the last layer's running mean and variance after `check_train`."""
        norm = [each for each in self.encoder.modules() if isinstance(each, nn.BatchNorm1d)][-1]
        pairs = ((norm.running_mean, "running_mean_after"), (norm.running_var, "running_var_after"))
        errors = [(value - torch.from_numpy(self.record[key])).abs().max() for value, key in pairs if value is not None]
        return float(errors[0]), float(errors[1])


def json_shape(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.strip("[]").split(",") if side.strip())


def drawn(names: list[str], shapes: list[tuple[int, ...]], seed: int = SEED) -> dict[str, Tensor]:
    """Weights by name, in the order of `names`, drawn in sorted order by the recordings' rule."""
    generator = np.random.default_rng(seed)
    values = {}
    by_name = dict(zip(names, shapes, strict=True))
    for name in sorted(names):
        shape = by_name[name]
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) >= 2:
            value = generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", "moving_var")):
            value = 0.5 + generator.random(shape)
        elif name.endswith(("running_mean", "moving_mean", "bias", "beta")):
            value = 0.1 * generator.standard_normal(shape)
        else:
            value = 0.25 + 0.75 * generator.random(shape)
        if name == "features_norm.weight":
            value = np.ones(shape)
        values[name] = torch.from_numpy(value.astype(np.float32))
    return {name: values[name] for name in names if name in values}
