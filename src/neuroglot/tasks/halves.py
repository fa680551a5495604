"""Halves of a task's items: one to choose on, the other to report."""

from __future__ import annotations

import hashlib

from neuroglot.errors import NeuroglotError
from neuroglot.tasks.equal_prompts import Indices, clusters_of, first_equal
from neuroglot.tasks.parallel import ParallelTask


def subject_of(item: dict[str, object]) -> str:
    """What an item is about; items of one subject are no independent samples."""
    return str(item.get("subject") or item["id"])


def halves(task: ParallelTask, *, seed: int = 0) -> tuple[ParallelTask, ParallelTask]:
    """A development half of a task, to choose on, and the other half, to report on.

    Items of one subject, or with an equal prompt, are in one of the halves.

    Args:
        task: whose items.
        seed: of the order in which subjects are dealt out.

    Raises:
        NeuroglotError: all items are of one subject, or hang together by equal prompts.
    """
    by_id = {item["id"]: item for item in task.items}
    one, other = (task.part([by_id[x] for x in ids]) for ids in parts_of(task, 0.5, seed))
    return one, other


def parts_of(
    task: ParallelTask, share: float, seed: int = 0, same: Indices | None = None
) -> tuple[list[str], list[str]]:
    """Ids of about this share of the items, and of the others.

    Items of one subject, or with an equal prompt, are in one of the parts.

    Args:
        task: whose items.
        share: between 0 and 1.
        seed: of the order in which subjects are dealt out.
        same: which prompts are equal (item, language), from
            :func:`neuroglot.answering.observations.same_tokens`; by default those that are the
            same text.

    Raises:
        NeuroglotError: all items are of one subject, or hang together by equal prompts.
    """
    if same is None:
        texts = [[item["prompts"][code].strip() for code in task.languages] for item in task.items]
        same = first_equal(texts)
    subjects = clusters_of([subject_of(item) for item in task.items], same)
    by_subject: dict[str, list[str]] = {}
    for item, subject in zip(task.items, subjects.tolist(), strict=True):
        by_subject.setdefault(subject, []).append(item["id"])
    if len(by_subject) < 2:
        raise NeuroglotError(
            f"task {task.name!r} has items of one subject only, or items that equal prompts tie "
            "together, so it cannot be split."
        )

    def order(subject: str) -> bytes:
        text = f"{seed}:{subject}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).digest()

    # Large subjects first, each to the part that lacks more, so that the parts end as wanted.
    parts: tuple[set[str], set[str]] = set(), set()
    wanted = (share * len(task), (1 - share) * len(task))
    for subject in sorted(by_subject, key=lambda x: (-len(by_subject[x]), order(x))):
        lacking = [n - len(part) for part, n in zip(parts, wanted, strict=True)]
        parts[lacking.index(max(lacking))].update(by_subject[subject])
    first, second = ([item["id"] for item in task.items if item["id"] in part] for part in parts)
    return first, second
