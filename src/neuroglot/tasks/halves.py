"""Split a task: into a half to choose settings on, and a half to report results on."""

from __future__ import annotations

import hashlib

from neuroglot.errors import NeuroglotError
from neuroglot.tasks.equal_prompts import Indices, clusters_of, first_equal
from neuroglot.tasks.parallel import ParallelTask


def subject_of(item: dict[str, object]) -> str:
    """The subject of an item, or its id; items of one subject are no independent samples."""
    return str(item.get("subject") or item["id"])


def halves(task: ParallelTask, *, seed: int = 0) -> tuple[ParallelTask, ParallelTask]:
    """Split a task into a development half, to choose settings on, and a half to report on.

    Items that have a subject or a prompt in common are in the same half.

    Args:
        task: the task to split.
        seed: the seed for the order in which subjects are assigned to the halves.

    Raises:
        NeuroglotError: the items cannot be split, because all are of one subject, or connected by
            equal prompts.

    Examples:
        >>> import neuroglot as ng
        >>> development, report = ng.halves(ng.load_task("facts", limit=40))
        >>> len(development), len(report)
        (20, 20)
        >>> {item["subject"] for item in development.items} & {
        ...     item["subject"] for item in report.items
        ... }
        set()
    """
    by_id = {item["id"]: item for item in task.items}
    first, second = (task.part([by_id[key] for key in ids]) for ids in parts_of(task, 0.5, seed))
    return first, second


def parts_of(
    task: ParallelTask, share: float, seed: int = 0, same: Indices | None = None
) -> tuple[list[str], list[str]]:
    """The ids of about this share of the items, and the ids of the others.

    Items that have a subject or a prompt in common are in the same part.

    Args:
        task: the task to split.
        share: the share of the first part, between 0 and 1.
        seed: the seed for the order in which subjects are assigned to the parts.
        same: which prompts are equal (item, language), from
            :func:`neuroglot.answering.observations.same_tokens`; by default, prompts with the
            same text are.

    Raises:
        NeuroglotError: the items cannot be split, because all are of one subject, or connected by
            equal prompts.
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
            f"task {task.name!r} cannot be split: its items are all of one subject, or connected "
            "by equal prompts."
        )

    def order(subject: str) -> bytes:
        text = f"{seed}:{subject}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).digest()

    # Large subjects go first, each to the part that lacks more items.
    parts: tuple[set[str], set[str]] = set(), set()
    wanted = (share * len(task), (1 - share) * len(task))
    for subject in sorted(by_subject, key=lambda name: (-len(by_subject[name]), order(name))):
        lacking = [n - len(part) for part, n in zip(parts, wanted, strict=True)]
        parts[lacking.index(max(lacking))].update(by_subject[subject])
    first, second = ([item["id"] for item in task.items if item["id"] in part] for part in parts)
    return first, second
