"""TFRecord framing, in which TensorBoard's event files keep their events.

    length of the data, u64 | masked CRC of those 8 bytes, u32 | data | masked CRC of it, u32

little-endian, the CRC being CRC-32C (Castagnoli), "masked" by a rotation and a constant so that
data may itself hold CRCs: tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details".
TensorBoard's own writer does the same, and takes a quarter of a second to import.
"""

import struct

_POLYNOMIAL = 0x82F63B78  # CRC-32C's, its bits reversed
_MASK = 0xA282EAD8


def _table() -> tuple[int, ...]:
    remainders = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
        remainders.append(crc)
    return tuple(remainders)


_TABLE = _table()


def record(data: bytes) -> bytes:
    """Returns `data` framed as one record."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    rotated = (crc >> 15) | (crc << 17)
    return struct.pack("<I", (rotated + _MASK) & 0xFFFFFFFF)
