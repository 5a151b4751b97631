"""Random streams that depend on what they are for and on nothing else."""

from hashlib import blake2b

import numpy as np


def random_stream(seed: int, purpose: str, day: int = 0, block: int = 0) -> np.random.Generator:
    """The generator of (seed, purpose, day, block), whatever ran before it or runs beside it.

    Philox is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so any key
    starts an independent stream; the key is a 128-bit BLAKE2b of the four parts.
    """
    digest = blake2b(f"{seed}|{purpose}|{day}|{block}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
