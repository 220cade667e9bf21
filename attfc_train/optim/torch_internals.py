"""The private names of torch that the trainer relies on, all in this file.

A release of torch may change any of them without a word: `tests/train/optim/test_torch_internals.py` states what is relied on,
name by name. They are torch's own functions under another name, so a trace of a step shows the same operators.
"""

from __future__ import annotations

import torch
from torch import Tensor

# In place on lists of tensors, a few kernels for a whole list. ``torch.optim`` is made of them, but they have no public name.
foreach_add_ = torch._foreach_add_
"""``a_i <- a_i + alpha b_i``."""
foreach_mul_ = torch._foreach_mul_
"""``a_i <- a_i s``, with a number or a scalar tensor s."""
foreach_lerp_ = torch._foreach_lerp_
"""``a_i <- a_i + s (b_i - a_i)``, with a number s."""
foreach_copy_ = torch._foreach_copy_
"""``a_i <- b_i``."""
foreach_norm = torch._foreach_norm
"""Return the L2 norm of every tensor, scalars."""

# What ``torch.amp.GradScaler`` is made of; it asks the host at every step, these never do.
unscale_and_check_ = torch._amp_foreach_non_finite_check_and_unscale_
"""``a_i <- a_i s``, with a scalar tensor s; ``found <- 1`` where any a_i was infinite or NaN, else `found` stays."""
update_scale_ = torch._amp_update_scale_
"""``(scale, tracker, found, growth, backoff, interval)``: ``scale <- backoff scale`` where found is 1, ``growth scale`` after
`interval` calls in a row with 0, which `tracker`, an int32 scalar, counts."""

# ``PYTORCH_ALLOC_CONF`` is read once; after that there is no public way to change it.
set_allocator = torch._C._accelerator_setAllocatorSettings
"""``(setting)``: the allocator's later segments are as `setting` says, in the words of ``PYTORCH_ALLOC_CONF``."""


def first_byte(tensor: Tensor) -> int | None:
    """Return where in its file the storage begins of a tensor that was loaded onto no device; None: it has none in a file."""
    if tensor.layout is not torch.strided:
        return None
    place: int | None = tensor.untyped_storage()._checkpoint_offset
    return place
