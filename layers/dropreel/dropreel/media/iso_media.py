"""The boxes that HEIC, AVIF, M4A, MP4, MOV and 3GP files are made of, as far as judging needs them.

ISO/IEC 14496-12, chapter 4.2.
"""

import struct
from collections.abc import Iterator

from dropreel.media.reader import Sparing


def top_boxes(file: Sparing) -> Iterator[tuple[bytes, int]]:
    """The name of each box at the top, and where it ends: perhaps beyond the end of the file."""
    position = 0
    while position + 8 <= file.size_bytes:
        length, name = struct.unpack(">I4s", file.at(position, 8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.at(position + 8, 8))
        position = position + max(length, 8) if length else file.size_bytes  # 0: up to the end
        yield name, position
