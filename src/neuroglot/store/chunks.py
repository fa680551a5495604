"""From the bytes of a chunk to its values, in no more room than the array's metadata promise.

A few bytes of Zstandard may stand for gigabytes, so sizes are compared before anything is made
room for. Only the codecs that neuroglot writes are known: Zstandard for what is saved whole, and
CRC-32C for what grows.
"""

from __future__ import annotations

from typing import Any, cast

import google_crc32c
import numpy as np
from numcodecs.vlen import VLenUTF8  # type: ignore[import-untyped]
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

from neuroglot.store.damage import WrongContentError

Values = np.ndarray[Any, Any]

MAGIC = b"\x28\xb5\x2f\xfd"  # a frame of Zstandard begins with it (RFC 8878)
MOST_IN_A_BYTE = 32_768  # no byte of Zstandard holds more: a block of 128 KiB takes four at least
CRC_BYTES = 4
# Text has no size that metadata could promise. What is more than this of a text, and compressed
# a thousandfold, is none that anybody wrote.
BYTES_OF_A_TEXT, TEXT_ROOM, MOST_TEXT_IN_A_BYTE = 1024, 2**24, 1000


def check_size(found: int, codec: str, n_values: int, dtype: np.dtype[Any]) -> None:
    """Refuse a chunk whose size on the disk does not fit what it is to hold.

    Args:
        found: bytes of the file.
        codec: ``"zstd"`` or ``"crc32c"``.
        n_values: of the chunk.
        dtype: of the values; ``object`` for texts.

    Raises:
        WrongContentError: it says both sizes.
    """
    # A text takes four bytes for its length, and their number four more.
    is_text = dtype.kind == "O"
    wanted = 4 + 4 * n_values if is_text else n_values * dtype.itemsize
    if codec == "crc32c":
        least, most = wanted + CRC_BYTES, wanted + CRC_BYTES
    else:
        least, most = -(-wanted // MOST_IN_A_BYTE), wanted + wanted // 128 + 2**16
    if found < least or (found > most and not is_text):
        raise WrongContentError(f"{found:,} bytes cannot be the {codec} of {wanted:,}")


def decoded(data: bytes, codec: str, n_values: int, dtype: np.dtype[Any]) -> Values:
    """The values of a chunk, in one dimension.

    Args:
        data: of the file.
        codec: ``"zstd"`` or ``"crc32c"``.
        n_values: of the chunk.
        dtype: of the values; ``object`` for texts.

    Raises:
        WrongContentError: a wrong checksum or size, or bytes that do not decode.
    """
    check_size(len(data), codec, n_values, dtype)
    is_text = dtype.kind == "O"
    if codec == "crc32c":
        content = _checked(data)
    else:
        content = _decompressed(data, _content_size(data, n_values, dtype))
    return _texts(content, n_values) if is_text else content.view(dtype)


def _checked(data: bytes) -> Values:
    """The bytes before their CRC-32C."""
    content = np.frombuffer(data, np.uint8)[:-CRC_BYTES]
    if google_crc32c.value(cast("Any", content)) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise WrongContentError("the checksum does not match")
    return content


def _content_size(data: bytes, n_values: int, dtype: np.dtype[Any]) -> int:
    """What a frame of Zstandard says that it holds, if it may."""
    says = frame_size(data)
    if dtype.kind != "O":
        wanted = n_values * dtype.itemsize
        if says != wanted:
            raise WrongContentError(f"it holds {says:,} bytes, expected {wanted:,}")
        return wanted
    most = TEXT_ROOM + n_values * BYTES_OF_A_TEXT + len(data) * MOST_TEXT_IN_A_BYTE
    if says > most:
        raise WrongContentError(
            f"it holds {says:,} bytes, expected {n_values:,} texts and at most {most:,}"
        )
    return says


def frame_size(data: bytes) -> int:
    """The size of the content in the header of a Zstandard frame.

    Raises:
        WrongContentError: there is no header, or it does not say the size.
    """
    if data[:4] != MAGIC or len(data) < 6:
        raise WrongContentError("it is not compressed by Zstandard")
    descriptor = data[4]
    has_window = not descriptor & 0x20
    width = (0 if has_window else 1, 2, 4, 8)[descriptor >> 6]
    # Neither the reserved bit nor dictionaries are used.
    if not width or descriptor & 0x0B:
        raise WrongContentError("its Zstandard header does not say how much it holds")
    start = 5 + has_window
    if len(data) < start + width:
        raise WrongContentError("its Zstandard header is cut")
    return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)


def _decompressed(data: bytes, size: int) -> Values:
    """The content of a Zstandard frame; what does not fit is refused by the decoder."""
    out = np.empty(size, np.uint8)
    try:
        Zstd().decode(data, out)
    except (RuntimeError, ValueError) as error:
        if "llocation" in str(error):  # no room for the decoder itself is no fault of the data
            raise MemoryError(str(error)) from error
        raise WrongContentError(str(error)) from error
    return out


def _texts(content: Values, n_values: int) -> Values:
    """Texts, each after its length, after their number."""
    says = int.from_bytes(content[:4].tobytes(), "little")
    if says != n_values or len(content) < 4 + 4 * n_values:
        raise WrongContentError(f"it holds {says:,} texts, expected {n_values:,}")
    try:
        found: Values = VLenUTF8().decode(content)
    except ValueError as error:
        raise WrongContentError(str(error)) from error
    return found
