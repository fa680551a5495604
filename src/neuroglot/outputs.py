"""Places that a user names for output, and files there: each is as it was, or as it should be."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from neuroglot.errors import NeuroglotError

OURS = ".neuroglot-"  # how the names of files begin that are not whole yet
TRIAL = "neuroglot-trial"  # how the name of a file ends that says whether one can be written
# Tells this process from an earlier one of its number; in a container each may have the same.
PROCESS = secrets.token_hex(4)


def real_path(path: str | Path) -> Path:
    """The place that a path leads to, with every link followed; a link itself is never replaced.

    Raises:
        NeuroglotError: nothing can be written there, since the path is the root of the file system,
            lies below a file, cannot be one, or leads through a link to what is not there or back
            to the link.
    """
    try:
        given = Path(path).absolute()
        for place in (given, *given.parents):
            _check_link(place, given)
        real = given.resolve()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        # A null character is a ValueError.
        if isinstance(error, NeuroglotError):
            raise
        raise _cannot(path, str(getattr(error, "strerror", None) or error)) from error
    if real == real.parent:
        raise _cannot(path, "that is the root of the file system; name a place below it")
    return real


def _check_link(place: Path, given: Path) -> None:
    """Refuse a link that leads nowhere, and a file above the place that is meant."""
    if place.is_symlink():
        try:
            place.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _cannot(given, f"the link {str(place)!r} leads back to itself") from error
            to = place.readlink()
            raise _cannot(
                given, f"{str(place)!r} is a link to {str(to)!r}, which is not there"
            ) from error
    if place != given and place.exists() and not place.is_dir():
        raise _cannot(given, f"{str(place)!r} is a file, and no folder")


def _cannot(path: str | Path, reason: str) -> NeuroglotError:
    return NeuroglotError(f"cannot write to {str(path)!r}: {reason}.")


def write_file(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all, whenever the process is killed or the disk is full.

    It is written beside its place and renamed. Where the path is a link, the file that it leads to
    is replaced. What is no ordinary file, such as a device or a pipe, is written to as it is.

    Args:
        path: of the file; its folder must be there.
        content: bytes, or text that is written in UTF-8.

    Raises:
        NeuroglotError: nothing can be written there; see :func:`real_path`.
        OSError: the file cannot be written; what was there is there still.
        ValueError: the text cannot be encoded.
    """
    data = content.encode() if isinstance(content, str) else content
    target = real_path(path)
    there = target.exists()
    if there and not target.is_file():
        target.write_bytes(data)
        return
    if there and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    beginning = f"{OURS}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"
    _clear_up(target.parent, beginning)
    fresh = target.with_name(f"{beginning}{os.getpid()}-{PROCESS}-{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # some disks say only now that they are full
        if there:
            shutil.copymode(target, fresh)
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _clear_up(folder: Path, beginning: str) -> None:
    """Remove what processes left that were killed while they wrote the same file."""
    for leftover in folder.glob(f"{beginning}*"):
        number, _, rest = leftover.name.removeprefix(beginning).partition("-")
        if number.isdecimal() and not _is_running(int(number), rest.partition("-")[0]):
            with suppress(OSError):
                leftover.unlink()


def _is_running(process: int, token: str) -> bool:
    """Whether a process may be there, by its number and what it tells itself apart by."""
    if process == os.getpid():
        return token == PROCESS
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def check_writable(path: str | Path, *, inside: bool = False) -> None:
    """Refuse a place where no file can be made, by making an empty one that is removed at once.

    Folders that are missing are not made: then the file is in the first one above that is there.
    A process that is killed just then leaves it to the next look at the same place, which removes
    it.

    Args:
        path: of a file or folder that is to be made or replaced, with working files beside it.
        inside: files are made in the folder at ``path``, and none beside it.

    Raises:
        NeuroglotError: nothing can be written there; see :func:`real_path`.
    """
    target = real_path(path)
    is_device = target.exists() and not (target.is_file() or target.is_dir())
    try:
        if (target.is_file() or is_device) and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if is_device:  # it is written to as it is, such as /dev/null
            return
        places = (target, *target.parents) if inside else target.parents
        folder = next(place for place in places if place.is_dir())
        trial = folder / f".{target.name}.{TRIAL}"
        with trial.open("ab"):
            pass
        with suppress(FileNotFoundError):  # another process tried the same place
            if not trial.stat().st_size:  # else it is none of ours
                trial.unlink()
    except OSError as error:
        raise _cannot(path, error.strerror or str(error)) from error
