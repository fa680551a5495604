"""Write files at places that a user names: each file is written whole, or left as it was."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from neuroglot.errors import NeuroglotError

OURS = ".neuroglot-"  # the names of unfinished files begin with this
TRIAL = "neuroglot-trial"  # the names of files that test whether a place is writable end with this
# Distinguishes this process from an earlier one with the same number, as is usual in containers.
PROCESS = secrets.token_hex(4)


def real_path(path: str | Path) -> Path:
    """The absolute path with every link followed, so that a link itself is never replaced.

    Raises:
        NeuroglotError: nothing can be written there: the path is invalid, is the root of the file
            system, lies below a file, or has a link that is broken or leads back to itself.
    """
    try:
        given = Path(path).absolute()
        for place in (given, *given.parents):
            _check_link(place, given)
        real = given.resolve()
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        # A null character raises a ValueError.
        if isinstance(error, NeuroglotError):
            raise
        raise _cannot(path, str(getattr(error, "strerror", None) or error)) from error
    if real == real.parent:
        raise _cannot(path, "that is the root of the file system; name a place below it")
    return real


def _check_link(place: Path, given: Path) -> None:
    """Check that ``place``, which is ``given`` or above it, is no broken link and no file above."""
    if place.is_symlink():
        try:
            place.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _cannot(given, f"the link {str(place)!r} leads back to itself") from error
            reason = f"{str(place)!r} is a link to {str(place.readlink())!r}, which is not there"
            raise _cannot(given, reason) from error
    if place != given and place.exists() and not place.is_dir():
        raise _cannot(given, f"{str(place)!r} is a file, not a folder")


def _cannot(path: str | Path, reason: str) -> NeuroglotError:
    return NeuroglotError(f"cannot write to {str(path)!r}: {reason}.")


def write_file(path: str | Path, content: bytes | str) -> None:
    """Write a file completely or not at all, even if the process is killed or the disk is full.

    The file is written beside its place and then renamed. If the path is a link, the file to which
    it leads is replaced. Devices and pipes are written to directly.

    Args:
        path: the path of the file, whose folder must exist.
        content: bytes, or a text, which is written in UTF-8.

    Raises:
        NeuroglotError: nothing can be written there; see :func:`real_path`.
        OSError: the file cannot be written; an existing file is unchanged.
        ValueError: the text cannot be encoded.
    """
    data = content.encode() if isinstance(content, str) else content
    target = real_path(path)
    exists = target.exists()
    if exists and not target.is_file():
        target.write_bytes(data)
        return
    if exists and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    beginning = f"{OURS}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"
    _clear_up(target.parent, beginning)
    fresh = target.with_name(f"{beginning}{os.getpid()}-{PROCESS}-{secrets.token_hex(4)}")
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # only now do some disks report that they are full
        if exists:
            shutil.copymode(target, fresh)
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _clear_up(folder: Path, beginning: str) -> None:
    """Remove the files of processes that were killed while they wrote the same file."""
    for leftover in folder.glob(f"{beginning}*"):
        number, _, rest = leftover.name.removeprefix(beginning).partition("-")
        if number.isdecimal() and not _is_running(int(number), rest.partition("-")[0]):
            with suppress(OSError):
                leftover.unlink()


def _is_running(process: int, token: str) -> bool:
    """Whether a process may still run, given its number and its :data:`PROCESS`."""
    if process == os.getpid():
        return token == PROCESS
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (OSError, OverflowError) as error:
        return not isinstance(error, ProcessLookupError)
    return True


def check_writable(path: str | Path, *, inside: bool = False) -> None:
    """Check that a file can be made at a place, by making an empty one and removing it.

    Missing folders are not made; the empty file is then made in the nearest folder above that
    exists. If the process is killed before it removes the file, the next check of the same place
    removes it.

    Args:
        path: the path of a file or folder that will be made or replaced, with working files beside
            it.
        inside: whether files will be made only inside the folder at ``path``.

    Raises:
        NeuroglotError: nothing can be written there; see :func:`real_path`.
    """
    target = real_path(path)
    is_device = target.exists() and not (target.is_file() or target.is_dir())
    try:
        if (target.is_file() or is_device) and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if is_device:  # such as /dev/null, which is written to directly
            return
        places = (target, *target.parents) if inside else target.parents
        folder = next(place for place in places if place.is_dir())
        trial = folder / f".{target.name}.{TRIAL}"
        with trial.open("ab"):
            pass
        with suppress(FileNotFoundError):  # another process tried the same place
            if not trial.stat().st_size:  # otherwise somebody else made it
                trial.unlink()
    except OSError as error:
        raise _cannot(path, error.strerror or str(error)) from error
