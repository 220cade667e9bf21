"""The cosines' own backward pass is autograd's."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from attfc_train.heads.cosines import cosines


def test_values_and_gradients_are_those_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    query, rows, upstream = (torch.randn(*shape, generator=generator).double() for shape in ((7, 5), (11, 5), (7, 11)))
    query = normalize(query, dim=1).requires_grad_()
    rows = rows.requires_grad_()
    actual = cosines(query, rows)
    expected = query @ normalize(rows, dim=1).t()
    torch.testing.assert_close(actual, expected)
    for left, right in zip(*(torch.autograd.grad(each, (query, rows), upstream) for each in (actual, expected)), strict=True):
        torch.testing.assert_close(left, right)
