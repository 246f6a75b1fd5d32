"""How much of the rows is computed at once, and in which form: blocks, the chunks in them, columns or products."""

import math
from typing import NamedTuple

# Bytes of features and table of one chunk of rows: what the cache of a core holds, and the most that may be taken so
# that a chunk has ``CHUNK_ROWS``, with fewer of which the matrix products and the turns of the loop cost more. Memory
# that is used for the first time in a call costs more than what is done with it.
CHUNK_BYTES = 2**18
MOST_CHUNK_BYTES = 2**22
CHUNK_ROWS = 2048
# Bytes of the table of a chunk, where it is all that is formed.
TABLE_BYTES = 2**21
# Numbers in the table of a block of sparse rows: the more rows, the fewer columns have but a few non-zeros.
SPARSE_TABLE_NUMBERS = 2**22
# Bytes of the covariances of what is missing for one chunk of rows: several arrays as large have to fit the caches.
COMPLETED_BYTES = 2**20
# Bytes of data in one block of large data, the least rows of one, and the bytes in the one block of small data.
BLOCK_BYTES = 2**22
SMALLEST_BLOCK = 16384
SMALL_BYTES = 2**22


# A matrix product for each component takes twice the operations of one with all products of two entries of a row, but
# spares forming these, which costs the more the wider the rows are. Measured in both precisions with 8 to 256 entries:
# the products win up to a number of components between a sixth and a quarter of the entries, but for few entries to 4.
_FEWEST_ENTRIES = 8
_ENTRIES_PER_COMPONENT = 5
_COMPONENTS_AT_LEAST = 4


class Chunking(NamedTuple):
    """Rows of one block, and of one chunk in it, both powers of two; and how many blocks one E half-step's call takes.

    Data of no more blocks than that is looped over inside one compiled function. Restarts side by side take one.
    """

    block_rows: int
    chunk_rows: int
    parallel_blocks: int = 1


def chunk_rows(row_bytes: int) -> int:
    """Rows of a chunk whose features and table take so many bytes a row."""
    least = power_of_two(MOST_CHUNK_BYTES / row_bytes, 256, CHUNK_ROWS)
    return power_of_two(CHUNK_BYTES / row_bytes, least, 131072)


def power_of_two(rows: float, least: int, most: int) -> int:
    """The largest power of two that is no more than ``rows``, between ``least`` and ``most``."""
    return int(2 ** math.floor(math.log2(min(max(rows, least), most))))


def takes_products(num_entries: int, num_components: int, is_one_line: bool = False) -> bool:
    """Whether events whose statistics are products of their entries are worth a matrix product for each component. It
    always is where their table is made of residuals from one line, and needs none.
    """
    most = max(_COMPONENTS_AT_LEAST, num_entries // _ENTRIES_PER_COMPONENT)
    return num_entries >= _FEWEST_ENTRIES and (is_one_line or num_components <= most)
