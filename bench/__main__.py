"""``make bench``: every measurement, as one table."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

from bench import answering, deactivating, gpu, identity, loading, memory, recording, sharing
from bench.measure import Row
from bench.table import print_table

PARTS: dict[str, Callable[[], list[Row]]] = {
    "recording": recording.rows,
    "answering": answering.rows,
    "deactivating": deactivating.rows,
    "sharing": sharing.rows,
    "identity": identity.rows,
    "loading": loading.rows,
    "memory": memory.rows,
    "gpu": gpu.rows,
}


def main(wanted: list[str]) -> None:
    """Run the named parts, or all."""
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}.")
    warnings.simplefilter("ignore")
    found: list[Row] = []
    for name in wanted or PARTS:
        sys.stderr.write(f"{name} …\n")
        found += PARTS[name]()
    print_table(found)


if __name__ == "__main__":
    main(sys.argv[1:])
