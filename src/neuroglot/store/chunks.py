"""Decode chunks, with no more memory than the metadata of the array promise.

A few bytes of Zstandard can stand for gigabytes, so sizes are compared before memory is reserved.
Only the codecs that neuroglot writes are read: Zstandard for results that are saved as a whole, and
CRC-32C for results that grow.
"""

from __future__ import annotations

from typing import Any, cast

import google_crc32c
import numpy as np
from numcodecs.vlen import VLenUTF8  # type: ignore[import-untyped]
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

from neuroglot.store.damage import WrongContentError

Values = np.ndarray[Any, Any]

MAGIC = b"\x28\xb5\x2f\xfd"  # the first bytes of a Zstandard frame (RFC 8878)
MOST_IN_A_BYTE = 32_768  # highest compression: a block of 128 KiB takes at least four bytes
CRC_BYTES = 4
# Metadata do not give the size of texts, so these limits are set far above any text that was
# written by a person.
BYTES_OF_A_TEXT, TEXT_ROOM, MOST_TEXT_IN_A_BYTE = 1024, 2**24, 1000


def check_size(n_bytes: int, codec: str, n_values: int, dtype: np.dtype[Any]) -> None:
    """Refuse a chunk whose file has a size that its content cannot have.

    Args:
        n_bytes: the size of the file.
        codec: ``"zstd"`` or ``"crc32c"``.
        n_values: the number of values in the chunk.
        dtype: the type of the values; ``object`` for texts.

    Raises:
        WrongContentError: the size is impossible; the message gives both sizes.
    """
    # The length of each text takes four bytes, and the number of texts four more.
    is_text = dtype.kind == "O"
    wanted = 4 + 4 * n_values if is_text else n_values * dtype.itemsize
    if codec == "crc32c":
        least, most = wanted + CRC_BYTES, wanted + CRC_BYTES
    else:
        least, most = -(-wanted // MOST_IN_A_BYTE), wanted + wanted // 128 + 2**16
    if n_bytes < least or (n_bytes > most and not is_text):
        raise WrongContentError(f"{n_bytes:,} bytes cannot be the {codec} of {wanted:,}")


def decoded(data: bytes, codec: str, n_values: int, dtype: np.dtype[Any]) -> Values:
    """The values of a chunk (value).

    Args:
        data: the content of the file.
        codec: ``"zstd"`` or ``"crc32c"``.
        n_values: the number of values in the chunk.
        dtype: the type of the values; ``object`` for texts.

    Raises:
        WrongContentError: the size or checksum is wrong, or the bytes cannot be decoded.
    """
    check_size(len(data), codec, n_values, dtype)
    if codec == "crc32c":
        content = _checked(data)
    else:
        content = _decompressed(data, _content_size(data, n_values, dtype))
    return _texts(content, n_values) if dtype.kind == "O" else content.view(dtype)


def _checked(data: bytes) -> Values:
    """The bytes before the CRC-32C checksum, once they match it."""
    content = np.frombuffer(data, np.uint8)[:-CRC_BYTES]
    if google_crc32c.value(cast("Any", content)) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise WrongContentError("the checksum does not match")
    return content


def _content_size(data: bytes, n_values: int, dtype: np.dtype[Any]) -> int:
    """The size of the content that a Zstandard frame claims, once it is a possible one."""
    claimed = frame_size(data)
    if dtype.kind != "O":
        wanted = n_values * dtype.itemsize
        if claimed != wanted:
            raise WrongContentError(f"it holds {claimed:,} bytes, expected {wanted:,}")
        return wanted
    most = TEXT_ROOM + n_values * BYTES_OF_A_TEXT + len(data) * MOST_TEXT_IN_A_BYTE
    if claimed > most:
        raise WrongContentError(
            f"it holds {claimed:,} bytes, expected {n_values:,} texts and at most {most:,}"
        )
    return claimed


def frame_size(data: bytes) -> int:
    """The size of the content, from the header of a Zstandard frame.

    Raises:
        WrongContentError: there is no header, or it does not give the size.
    """
    if data[:4] != MAGIC or len(data) < 6:
        raise WrongContentError("it is not compressed by Zstandard")
    descriptor = data[4]
    has_window = not descriptor & 0x20
    width = (0 if has_window else 1, 2, 4, 8)[descriptor >> 6]
    # neuroglot writes neither the reserved bit nor the number of a dictionary.
    if not width or descriptor & 0x0B:
        raise WrongContentError("its Zstandard header does not say how much it holds")
    start = 5 + has_window
    if len(data) < start + width:
        raise WrongContentError("its Zstandard header is cut")
    return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)


def _decompressed(data: bytes, size: int) -> Values:
    """The content of a Zstandard frame; the decoder refuses content of another size."""
    out = np.empty(size, np.uint8)
    try:
        Zstd().decode(data, out)
    except (RuntimeError, ValueError) as error:
        if "llocation" in str(error):  # the decoder found no memory for itself
            raise MemoryError(str(error)) from error
        raise WrongContentError(str(error)) from error
    return out


def _texts(content: Values, n_values: int) -> Values:
    """Decode texts: their number, and then the length and the bytes of each."""
    n_texts = int.from_bytes(content[:4].tobytes(), "little")
    if n_texts != n_values or len(content) < 4 + 4 * n_values:
        raise WrongContentError(f"it holds {n_texts:,} texts, expected {n_values:,}")
    try:
        texts: Values = VLenUTF8().decode(content)
    except ValueError as error:
        raise WrongContentError(str(error)) from error
    return texts
