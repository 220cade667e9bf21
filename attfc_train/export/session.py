"""An ONNX model that runs, with ONNX Runtime on the CPU, wherever an encoder is wanted."""

from __future__ import annotations

import onnxruntime
import torch
from torch import Tensor, nn

from attfc_train.errors import CheckpointError

_QUIET = 3
"""ONNX Runtime's level for errors alone."""


class OnnxEncoder(nn.Module):
    """The network of an ONNX file: float32 [N, 3, S, S] in [-1, 1] to float32 [N, D], on the CPU, without gradients.

    Args:
        content: the file.
        where: its name in messages.

    Raises:
        CheckpointError: ONNX Runtime does not take it.
    """

    def __init__(self, content: bytes, where: str) -> None:
        super().__init__()
        self._where = where
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = _QUIET
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common class that is public
            raise self._error(error) from error
        data = self._session.get_inputs()[0]
        self._input: str = data.name
        first = data.shape[0]
        self._batch: int | None = first if isinstance(first, int) and first > 0 else None  # some exporters fix it

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings, not normalised; a file of a fixed batch size is run as often as it takes.

        Raises:
            CheckpointError: the network cannot compute so many images, or gives something else.
        """
        if self._batch is None or not len(images):
            return self._run(images)
        missing = -len(images) % self._batch
        whole = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
        return torch.cat([self._run(part) for part in whole.split(self._batch)])[: len(images)]

    def _run(self, images: Tensor) -> Tensor:
        try:
            (result,) = self._session.run(None, {self._input: images.cpu().numpy()})
        except Exception as error:
            raise self._error(error) from error
        if result.ndim != 2 or len(result) != len(images):
            got = f"shape {list(result.shape)} for {len(images)}"
            raise CheckpointError(f"'{self._where}' must give an embedding per image", got, "Export it with a symbolic batch.")
        return torch.from_numpy(result)

    def _error(self, error: Exception) -> CheckpointError:
        got = " ".join(str(error).split())[:160]
        return CheckpointError(
            f"ONNX Runtime must be able to run '{self._where}'", got, "Export it again, or use its .pt file."
        )
