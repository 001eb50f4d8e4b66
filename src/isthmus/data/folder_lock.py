"""A folder that one process at a time works in.

The lock is the kernel's, on a file in the folder: it is given back when the process ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

_NAME = "lock"


def hold(folder: Path) -> BinaryIO | None:
    """Lock a folder, made if needed, until the returned file is closed; None where that cannot be.

    It cannot be where another process holds the folder, or another user owns it, or the file system has no locks. A
    forked process has a copy of the open file, and the folder stays locked until it closes that one as well.
    """
    if fcntl is None:
        return None
    path = folder / _NAME
    while True:
        folder.mkdir(exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:
            continue
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had the lock before may have removed the folder in the meantime.
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            file.close()
        except FileNotFoundError:
            file.close()
        except OSError:
            file.close()
            return None


def lockable(folder: Path) -> bool:
    """Whether a folder is one that is locked while somebody works in it."""
    return (folder / _NAME).exists()


def discard(folder: Path, doomed: Path) -> None:
    """Remove a folder that this process holds, under another name, so that nobody ever meets a part of it."""
    os.rename(folder, doomed)
    # Without its lock it is taken for what it is, should this process be killed now.
    (doomed / _NAME).unlink(missing_ok=True)
    shutil.rmtree(doomed, ignore_errors=True)
