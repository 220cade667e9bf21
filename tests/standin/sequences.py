"""A random sequence of allocations through torch's own allocator: the program of `tests/standin/test_allocator.py`.

It prints events, sizes and what was reserved after each as JSON; the first argument is the seed.
"""

from __future__ import annotations

import json
import random
import sys

import torch

MIB = 2**20
NUM_EVENTS = 400
FEW = [512, 2048, 100 * 1024, MIB, MIB + 512, 3 * MIB, 5 * MIB, 12 * MIB, 25 * MIB]
"""Sizes of every other sequence: with few, blocks are often equal."""


def size_of(draw: random.Random, few: bool) -> int:
    if few:
        return draw.choice(FEW)
    return draw.randint(*draw.choice([(1, 5000), (1, 2 * MIB), (MIB, 60 * MIB), (MIB, 60 * MIB)]))


def main() -> None:
    seed = int(sys.argv[1])
    draw = random.Random(seed)
    free, total = torch.cuda.mem_get_info()
    events: list[int] = []
    sizes: list[int] = []
    reserved: list[int] = []
    held: dict[int, int] = {}
    full = False
    for _ in range(NUM_EVENTS):
        if held and draw.random() < 0.48:
            storage = draw.choice(list(held))
            torch.cuda.caching_allocator_delete(held.pop(storage))
            events.append(~storage)
        else:
            events.append(len(sizes))
            sizes.append(size_of(draw, few=seed % 2 == 1))
            try:
                held[events[-1]] = torch.cuda.caching_allocator_alloc(sizes[-1])
            except torch.OutOfMemoryError:
                full = True
                break
        reserved.append(torch.cuda.memory_reserved())
    retries = torch.cuda.memory_stats()["num_alloc_retries"]
    result = {"events": events, "sizes": sizes, "reserved": reserved, "full": full, "retries": retries}
    print(json.dumps({**result, "free": free, "total": total}))


if __name__ == "__main__":
    main()
