"""Halves of a task's items: one to choose on, the other to report."""

from __future__ import annotations

import hashlib

from neuroglot.errors import NeuroglotError
from neuroglot.tasks import ParallelTask


def subject_of(item: dict[str, object]) -> str:
    """What an item is about; items of one subject are no independent samples."""
    return str(item.get("subject") or item["id"])


def halves(task: ParallelTask, seed: int = 0) -> tuple[list[str], list[str]]:
    """Ids of a development half and of the other half; a subject is in one of them.

    Args:
        task: whose items.
        seed: of the order in which subjects are dealt out.

    Raises:
        NeuroglotError: all items are of one subject.
    """
    by_subject: dict[str, list[str]] = {}
    for item in task.items:
        by_subject.setdefault(subject_of(item), []).append(item["id"])
    if len(by_subject) < 2:
        raise NeuroglotError(
            f"task {task.name!r} has items of one subject only, so it cannot be split into halves."
        )

    def order(subject: str) -> bytes:
        text = f"{seed}:{subject}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).digest()

    # Large subjects first, each to the smaller half, so that the halves end about equal.
    parts: tuple[set[str], set[str]] = set(), set()
    for subject in sorted(by_subject, key=lambda x: (-len(by_subject[x]), order(x))):
        smaller = min(parts, key=len)
        smaller.update(by_subject[subject])
    development, test = (
        [item["id"] for item in task.items if item["id"] in part] for part in parts
    )
    return development, test
