"""How many rows are computed at once: the sizes of blocks and of the chunks in them."""

import math
from typing import NamedTuple

# Bytes of features and table that one chunk of rows may take: what the caches of the cores hold.
CHUNK_BYTES = 2**22
# Bytes of the covariances of what is missing for one chunk of rows: several arrays as large have to fit the caches.
COMPLETED_BYTES = 2**20
# Bytes of data in one block of large data, and in the one block of small data.
BLOCK_BYTES = 2**22
SMALL_BYTES = 2**22


class Chunking(NamedTuple):
    """Rows of one block, and of one chunk in it, both powers of two; and how many blocks one E half-step's call takes.

    Data of no more blocks than that is looped over inside one compiled function. Restarts side by side take one.
    """

    block_rows: int
    chunk_rows: int
    parallel_blocks: int = 1


def power_of_two(rows: float, least: int, most: int) -> int:
    """The largest power of two that is no more than ``rows``, between ``least`` and ``most``."""
    return int(2 ** math.floor(math.log2(min(max(rows, least), most))))
