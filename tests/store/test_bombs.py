"""Files that claim or hold far more than the metadata promise take no room."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xarray as xr
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

import neuroglot as ng
from neuroglot.store.chunks import frame_size
from neuroglot.store.damage import LAYOUT, WrongContentError
from tests.killing import ROOT
from tests.store import test_fuzz_store as whole
from tests.store.test_fuzz_store import make, put, read_everything, same, stored

ROOM = 2**26
BOMB = 2**28
CLAIMED = 100 * 2**30
HUGE = 10**12
_small_blocks = whole._small_blocks


def frame(content_size: int | None, *blocks: tuple[bytes, int]) -> bytes:
    """A Zstandard frame of blocks, each of one byte so often, or of bytes as they are.

    Args:
        content_size: what the header claims; none if it claims nothing.
        blocks: bytes, and how often.
    """
    header = b"\x00\x58" if content_size is None else b"\xe0" + struct.pack("<Q", content_size)
    found = [b"\x28\xb5\x2f\xfd" + header]
    for data, times in blocks:
        for start in range(0, times, 2**17):
            size = min(2**17, times - start)
            is_run = len(data) == 1
            size, kind = (size, 1) if is_run else (len(data), 0)
            found.append((size << 3 | kind << 1).to_bytes(3, "little") + data)
    return b"".join(found) + b"\x01\x00\x00"


def with_crc(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(4, "little")


def texts(*, number: int) -> bytes:
    """So many empty texts, it says."""
    return struct.pack("<I", number) + bytes(64)


@contextmanager
def little_room() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < ROOM
    finally:
        tracemalloc.stop()


def unmarked(kind: str) -> dict[str, bytes]:
    """The files of a sound result; whoever changes metadata would write their checksums too."""
    files, _ = stored(kind)
    root = json.loads(files["zarr.json"])
    del root["attributes"][LAYOUT]
    return {**files, "zarr.json": json.dumps(root).encode()}


CHUNKS: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {
    "a header that claims 100 GB": (
        *("sharing", "fraction"),
        lambda _: frame(CLAIMED, (b"\0", 100)),
    ),
    "no size in the header, and much inside": (
        *("sharing", "fraction"),
        lambda _: frame(None, (b"\0", BOMB)),
    ),
    "the promised size in the header, and much inside": (
        *("sharing", "fraction"),
        lambda data: frame(frame_size(data), (b"\0", BOMB)),
    ),
    "much after a sound frame": (
        *("sharing", "fraction"),
        lambda data: data + frame(BOMB, (b"\0", BOMB)),
    ),
    "much after a sound frame, of which nothing says how much": (
        *("sharing", "fraction"),
        lambda data: data + frame(None, (b"\0", BOMB)),
    ),
    "less than promised": (
        *("sharing", "fraction"),
        lambda data: frame(frame_size(data), (b"\0", 8)),
    ),
    "labels that are much": (
        *("sharing", "language"),
        lambda _: frame(BOMB + 8, (struct.pack("<II", 3, BOMB - 8), 1), (b"x", BOMB)),
    ),
    "labels that claim to be much": (
        *("sharing", "language"),
        lambda _: frame(CLAIMED, (b"\0", 100)),
    ),
    "labels of a huge number": (
        *("sharing", "language"),
        lambda _: bytes(Zstd(checksum=True).encode(texts(number=2**27))),
    ),
    "texts of a huge number": (
        *("evaluated", "answer"),
        lambda _: with_crc(texts(number=2**27)),
    ),
    "a text of a huge length": (
        *("written", "text"),
        lambda _: with_crc(struct.pack("<II", 6, 2**31 - 1) + bytes(64)),
    ),
    "bits that are too many": (
        *("recorded", "active"),
        lambda data: with_crc(bytes(ROOM)),
    ),
}


@pytest.mark.parametrize("bomb", CHUNKS)
def test_a_chunk_that_is_a_bomb(bomb: str, tmp_path: Path) -> None:
    kind, name, change = CHUNKS[bomb]
    files, _ = stored(kind)
    file = next(x for x in files if x.startswith(f"{name}/c"))
    put(tmp_path / "r", files, file, change(files[file]), "")
    with little_room(), pytest.raises(ng.NeuroglotError, match=f"damaged .*{name}/c"):
        read_everything(tmp_path / "r")


@pytest.mark.parametrize("kind", ["recorded", "written"])
def test_a_block_that_is_a_bomb_is_made_again(kind: str, tmp_path: Path) -> None:
    files, expected = stored(kind)
    name = "active" if kind == "recorded" else "text"
    bomb = with_crc(bytes(ROOM)) if kind == "recorded" else with_crc(texts(number=2**27))
    for file in [x for x in files if x.startswith(f"{name}/c")]:
        put(tmp_path / "r", files, file, bomb, "")
        with little_room(), pytest.warns(UserWarning, match="are damaged .*; they are made again"):
            make(kind, tmp_path / "r")
        same(read_everything(tmp_path / "r"), expected)


GZIP = {"name": "gzip", "configuration": {"level": 5}}
ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": True}}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
BLOSC = {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 8, "blocksize": 0}
SHARDS = {
    **{"chunk_shape": [1, 1], "codecs": [BYTES, ZSTD], "index_location": "end"},
    "index_codecs": [BYTES, {"name": "crc32c"}],
}
TRANSPOSED = {"name": "transpose", "configuration": {"order": [1, 0]}}


def grid(shape: object) -> dict[str, object]:
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}}}


def text_of(length: int) -> dict[str, object]:
    configuration = {"length_bytes": length}
    return {"data_type": {"name": "fixed_length_utf32", "configuration": configuration}}


METADATA: dict[str, dict[str, object]] = {
    "gzip": {"codecs": [BYTES, GZIP]},
    "blosc": {"codecs": [BYTES, {"name": "blosc", "configuration": BLOSC}]},
    "sharding": {"codecs": [{"name": "sharding_indexed", "configuration": SHARDS}]},
    "compressed twice": {"codecs": [BYTES, ZSTD, ZSTD]},
    "compressed and gzipped": {"codecs": [BYTES, ZSTD, GZIP]},
    "no codec": {"codecs": [BYTES]},
    "transposed": {"codecs": [TRANSPOSED, BYTES, ZSTD]},
    "a codec of numcodecs": {"codecs": [BYTES, {"name": "numcodecs.lzma"}]},
    "another order of bytes": {
        "codecs": [{"name": "bytes", "configuration": {"endian": "big"}}, ZSTD]
    },
    "huge chunks": grid([HUGE, HUGE]),
    "huge chunks along one dimension": grid([3, HUGE]),
    "a huge array in one chunk": {"shape": [3, HUGE], **grid([3, HUGE])},
    "a huge array in small chunks": {"shape": [3, HUGE]},
    "huge texts": text_of(HUGE),
    "long texts": text_of(2**30),
    "bytes of any length": {"data_type": "variable_length_bytes"},
    "another format": {"zarr_format": 2},
    "a storage transformer": {"storage_transformers": [{"name": "x"}]},
    "chunks in a grid of their own": {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
    "numbers that stand for others": {"attributes": {"_FillValue": 0}},
}  # fmt: skip


@pytest.mark.parametrize("bomb", METADATA)
@pytest.mark.parametrize("content", ["as it was", "100 GB", "all that is promised"])
def test_metadata_that_are_a_bomb(bomb: str, content: str, tmp_path: Path) -> None:
    """Their checksums are right, and the chunk may say the same of itself."""
    files = unmarked("sharing")
    metadata = json.loads(files["fraction/zarr.json"]) | METADATA[bomb]
    files["fraction/zarr.json"] = json.dumps(metadata).encode()
    if content != "as it was":
        size = CLAIMED if content == "100 GB" else 8 * HUGE * HUGE % 2**64
        files[next(x for x in files if x.startswith("fraction/c"))] = frame(size, (b"\0", BOMB))
    put(tmp_path / "r", files, "zarr.json", files["zarr.json"], "")
    with little_room(), pytest.raises(ng.NeuroglotError, match=r"damaged .*fraction") as found:
        read_everything(tmp_path / "r")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("size", [2**18, 2**31, HUGE])
def test_an_unfinished_result_with_huge_metadata_is_mended_or_refused(
    size: int, tmp_path: Path
) -> None:
    """Its chunks need not all be there."""
    for name in ("active", "done", "item"):
        for where in ("shape", "chunks"):
            files = unmarked("recorded")
            root = json.loads(files["zarr.json"])
            del root["attributes"]["finished"]
            files["zarr.json"] = json.dumps(root).encode()
            metadata = json.loads(files[f"{name}/zarr.json"])
            sizes = metadata["chunk_grid"]["configuration"]["chunk_shape"]
            (metadata["shape"] if where == "shape" else sizes)[-1] = size
            out = tmp_path / name / where
            put(out, files, f"{name}/zarr.json", json.dumps(metadata).encode(), "")
            with little_room(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that damaged blocks are made again
                with pytest.raises(ng.NeuroglotError):
                    ng.load(out)
                try:
                    make("recorded", out)
                except ng.NeuroglotError:
                    continue
            same(read_everything(out), stored("recorded")[1])


def test_one_long_text_does_not_make_all_others_long(tmp_path: Path) -> None:
    """A table of texts of one length would take 40 GB for it."""
    words = np.array(["yes"] * 100_000, dtype=object)
    words[5] = "x" * 100_000
    data = xr.Dataset({"text": ("item", words)}, attrs={"kind": "evaluation"})
    ng.save(data, tmp_path / "r")
    with little_room():
        found = ng.load(tmp_path / "r")
    assert isinstance(found, xr.Dataset)
    assert found["text"].to_numpy().tolist() == words.tolist()
    ng.save(found, tmp_path / "again")
    xr.testing.assert_identical(ng.load(tmp_path / "again"), found)


def test_what_is_as_long_as_it_says_is_read(tmp_path: Path) -> None:
    """Zeros, equal texts and noise: the smallest and the largest that Zstandard makes of them."""
    noise = np.random.default_rng(0).integers(0, 256, 300_000).astype(np.uint8)
    data = xr.Dataset(
        {
            "zeros": ("x", np.zeros(10_000_000)),
            "noise": ("y", noise),
            "texts": ("z", np.array(["the same answer " * 20] * 50_000)),
            "no": ("nothing", np.zeros(0)),
            "one": ((), 3.5),
            "word": ((), "word"),
        },
        attrs={"kind": "x"},
    )
    ng.save(data, tmp_path / "r")
    xr.testing.assert_identical(ng.load(tmp_path / "r"), data)


def test_headers_of_frames() -> None:
    for size in (1, 100, 255, 256, 257, 65_791, 65_792, 65_793, 2**20):
        for level in (1, 3, 19):
            for checksum in (False, True):
                assert frame_size(Zstd(level, checksum=checksum).encode(bytes(size))) == size
    assert frame_size(frame(2**62)) == 2**62
    for data in (b"", b"\x28\xb5\x2f\xfd", b"x" * 20, frame(None), frame(5)[:9]):
        with pytest.raises(WrongContentError):
            frame_size(data)


MEASURED = """
import resource, sys
import neuroglot as ng
from neuroglot.store.results import open_dataset
open_dataset  # everything is imported
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    ng.load(sys.argv[1]).load()
except ng.NeuroglotError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("bomb", [x for x, (kind, *_) in CHUNKS.items() if kind == "sharing"])
def test_the_process_takes_no_room_either(bomb: str, tmp_path: Path) -> None:
    """As the system sees it: decoders that are not Python's make room for themselves."""
    _, name, change = CHUNKS[bomb]
    files, _ = stored("sharing")
    file = next(x for x in files if x.startswith(f"{name}/c"))
    put(tmp_path / "r", files, file, change(files[file]), "")
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "r")],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    taken, message = run.stdout.split(" ", 1)
    assert int(taken) < ROOM
    assert "damaged" in message
