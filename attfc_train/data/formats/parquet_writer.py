"""Writes Parquet files as the Hugging Face Hub has them: a structure with the image's bytes, and the label; needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.packages import needed
from attfc_train.files import write_atomically

_ROWS: Final = 100
"""Images of a row group, as the Hub's own writer has them: a read at any place takes a whole one."""
_FEATURES: Final = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
"""Tells the package datasets what the columns are."""


def write_parquet(path: Path, labels: NDArray[np.int64], encoded: Iterable[bytes]) -> None:
    """Write a ``.parquet`` file.

    Args:
        labels: int64 [N].
        encoded: N images.

    Raises:
        UsageError: pyarrow is not installed.
        StorageError: it cannot be written.
    """
    arrow = needed("pyarrow", "parquet")
    parquet = needed("pyarrow.parquet", "parquet")
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema(
        [("image", image), ("label", arrow.int64())], {"huggingface": json.dumps({"info": {"features": _FEATURES}})}
    )

    def write(file: BinaryIO) -> None:
        writer = parquet.ParquetWriter(file, schema, compression="none", use_dictionary=False)  # images are compressed already
        rows = iter(zip(labels.tolist(), encoded, strict=True))
        try:
            while part := list(islice(rows, _ROWS)):
                writer.write_table(_table(arrow, schema, part))
            writer.close()
        finally:
            writer.is_open = False  # else it writes the file's end when it is collected, also after an error

    write_atomically(path, write)


def _table(arrow: Any, schema: Any, part: list[tuple[int, bytes]]) -> Any:
    images = [{"bytes": content, "path": None} for _, content in part]
    columns = [arrow.array(images, schema.field("image").type), arrow.array([label for label, _ in part], arrow.int64())]
    return arrow.table(columns, schema=schema)
