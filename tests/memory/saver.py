"""A process that saves, and says what it was acknowledged: ``saver.py FOLDER NAME COUNT``.

With COUNT 0 it goes on, deleting, compacting and saving many now and then, until it is killed. It speaks to the core,
as CrewAI takes seconds to be imported.
"""

from __future__ import annotations

import random
import sys
from array import array

DIM = 64
MANY = 300
"""Records of a large save, whose vectors are flushed while its rows are written."""


def vector(text: str) -> list[float]:
    """Of length 1, and the same in every process."""
    chance = random.Random(text)
    numbers = [chance.gauss(0, 1) for _ in range(DIM)]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


def incoming(text: str) -> tuple[object, ...]:
    times, owner = (0, 0, None), (None, False)
    return text, f"word {text}", "/a", "[]", "{}", [], 0.5, times, owner, array("f", vector(text)).tobytes()


def main() -> None:
    from fastcrew_async._core import Memories, Runtime

    folder, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = Memories(Runtime(), folder, 2, 60.0)
    number = 0
    while not count or number < count:
        number += 1
        key = f"{name}x{number}"
        ids = [key] if number % 5 else [key, f"{key}b"]
        if not count and number % 9 == 0:
            ids = [f"{key}n{place}" for place in range(MANY)]
        store.save_sync([incoming(one) for one in ids])  # type: ignore[misc]
        print("saved", *ids, flush=True)
        if not count and number % 20 == 0:
            gone = [f"{name}x{old}" for old in range(number - 19, number - 4)]
            print("going", *gone, flush=True)
            store.delete_sync(gone, None, None, False)
            print("gone", *gone, flush=True)
            *_, segments = store.sizes_sync()
            for base, _, dead in segments[:-1]:
                at: int | None = 0 if dead else None
                while at is not None:
                    at = store.compact_sync(base, at, 8)
    store.close_sync()


if __name__ == "__main__":
    main()
