"""The classes that a Partial FC step scores: the batch's own and uniformly drawn others, without repetition.

Everything has a static shape and happens on the device. The draw is a function of its key alone, the same on every device.
A Feistel network permutes the cells of a grid with hardly more cells than there are classes; the classes are the first of its
values that are below N. Its round functions are tables of about sqrt(N) hashes, so a draw of K classes takes K look-ups per
round, where ``rand(N).topk(K)`` sorts all N.

Legend: N classes, K sampled, B labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attfc_train.device_hash import BITS_32, mixed
from attfc_train.heads.partial_fc.settings import grid

_ROUNDS = 3
"""Each moves row and column, so these are six moves; Luby and Rackoff's (1988) proofs need three or four."""


def draw_classes(num_ids: int, count: int, key: int, device: torch.device) -> Tensor:
    """Return `count` distinct classes of [0, num_ids) in random order, int64 on `device`; a function of `key` mod 2^32."""
    columns, rows = grid(num_ids)
    hashes = _hashes(_ROUNDS * (columns + rows), key, device)
    row_steps = (hashes[: _ROUNDS * columns] % rows).int().view(_ROUNDS, columns)
    column_steps = (hashes[_ROUNDS * columns :] % columns).int().view(_ROUNDS, rows)
    # rows x columns - N cells are no class. With so many cells to spare, `count` of the permuted ones are always classes.
    cell = torch.arange(count + rows * columns - num_ids, dtype=torch.int32, device=device)
    row, column = cell // columns, cell % columns
    # A round: row <- row + f(column) mod rows, column <- column + g(row) mod columns. Each line can be undone, so this is a
    # permutation whatever f and g are.
    for row_step, column_step in zip(row_steps, column_steps, strict=True):
        row = (row + row_step[column]) % rows
        column = (column + column_step[row]) % columns
    return _first_below(row * columns + column, num_ids, count).long()


def _hashes(count: int, key: int, device: torch.device) -> Tensor:
    """Return int64 [count] of 32 random bits each."""
    # hash(hash(place) xor key): with hash(place xor key), the keys of neighbouring steps would give the same hashes rearranged.
    return mixed(mixed(torch.arange(1, count + 1, device=device)).bitwise_xor_(key & BITS_32))


def _first_below(values: Tensor, limit: int, count: int) -> Tensor:
    """Return the first `count` of the `values` that are below `limit`; there must be as many."""
    # The n-th value below the limit goes to place n = 1 .. count. A static shape: all others go to place 0, which is cut off.
    below = values < limit
    place = below.cumsum(0)
    place = torch.where(below & (place <= count), place, 0)
    return values.new_empty(count + 1).scatter_(0, place, values)[1:]


def with_positives(classes: Tensor, labels: Tensor) -> Tensor:
    """Return `classes` with those of `labels` that are missing, in place of the first that are no label.

    The order of `classes` is random, so the negatives that stay are again uniform.

    Args:
        classes: int64 [K], distinct; K is at least the number of distinct labels. labels: int64 [B].
    """
    count = classes.shape[0]
    num = labels.shape[0]
    labels = labels.sort().values
    # Where in the sorted labels each class is, or would be: of equal labels the first.
    at = torch.searchsorted(labels, classes).clamp_max_(num - 1)
    # Where each label is among the classes. Those of no label go to one more entry; none: a place beyond all others.
    nobody = torch.full((num + 1,), count, device=labels.device)
    found = nobody.scatter_(0, torch.where(labels[at] == classes, at, num), torch.arange(count, device=labels.device))[:num]
    drawn = found < count
    free = _free_places(found, drawn, min(count, 2 * num))
    # The n-th distinct label that was not drawn takes the n-th free place; the others write to one more entry.
    first = torch.ones_like(drawn)
    torch.ne(labels[1:], labels[:-1], out=first[1:])
    new = first & ~drawn
    nth = new.cumsum(0) - 1
    result = torch.cat([classes, classes[:1]])
    return result.index_copy_(0, torch.where(new, free[nth.clamp_min(0)], count), labels)[:count]


def _free_places(old: Tensor, drawn: Tensor, limit: int) -> Tensor:
    """Return the places below `limit`, int64 [limit]: those that hold no label, in order, then the others.

    With limit = 2 B at most B of them hold a label, so B are free; with limit = K the distinct labels fit, as K is no less.
    """
    # A stable sort of 0 (free) and 1 (taken); what lies beyond the limit goes to one more entry, which is cut off.
    taken = torch.zeros(limit + 1, dtype=torch.uint8, device=old.device)
    taken.index_fill_(0, torch.where(drawn & (old < limit), old, limit), 1)
    return taken[:limit].argsort(stable=True)
