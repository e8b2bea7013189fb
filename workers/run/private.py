"""Folders that nobody but this user can change: for sockets, keys, and the caches from which libraries run code.

A temporary directory is shared with everybody who has an account, and what is in it may have been put there by anybody.
A folder counts as ours if it belongs to this user and nobody else may write to it, and if nobody else can put another
in its place: who may write to a folder above it can, unless that folder has the sticky bit, as /tmp has.
"""

from __future__ import annotations

import atexit
import getpass
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

PLACES = ("/tmp", "/var/tmp", "/usr/tmp", "/dev/shm")
"""Where temporary files may go if the variables name nothing that can be used."""
VARIABLES = ("TMPDIR", "TEMP", "TMP")
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Where the compilers of PyTorch keep pickles, C++ and libraries, all of which the next process runs."""
NO_HEADERS = {"TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0"}
"""Precompiled headers, from which kernels are built, are kept in the temporary directory whatever the caches' place."""
_FRESH = "ONWARD_FRESH_CACHE"
"""A cache for this process only: its number and the folder. In the environment, for `exec` forgets all else."""


def temporary_places() -> list[str]:
    """The folders for temporary files, best first; never the working directory, to which Python resorts."""
    chosen = () if _in_the_working_directory() else (tempfile.gettempdir(),)
    return list(dict.fromkeys((*chosen, *_told(), *PLACES)))


def who_else(folder: Path) -> str:
    """Why others decide what is found at the path of `folder`, in words; empty if nobody else does."""
    whole = Path(os.path.realpath(folder))
    for path in (whole, *whole.parents):
        found = path.stat()
        if found.st_uid not in _trusted():
            return f"'{path}' belongs to user {found.st_uid}"
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            return f"others may write to '{path}'"
    return ""


def make_private(prefix: str, places: Iterable[str], problems: list[str]) -> str:
    """A new folder of mode 0700 in the first of `places` where nobody can exchange it; empty if there is none.

    Args:
        prefix: of its name.
        places: to try.
        problems: gets a clause for every place that would not do.
    """
    for place in places:
        try:
            if reason := who_else(Path(place)):
                problems.append(reason)
                continue
            return tempfile.mkdtemp(prefix=prefix, dir=os.path.realpath(place))
        except OSError as error:
            problems.append(f"'{place}': {error.strerror}")
    return ""


def is_own(folder: Path) -> bool:
    """Whether `folder`, which is made if it is not there, is this user's and changed by nobody else."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return is_ours(folder) and os.access(folder, os.W_OK | os.X_OK)


def is_ours(folder: Path) -> bool:
    """Whether `folder` is there, is this user's and changed by nobody else."""
    try:
        found = folder.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
        return ours and not who_else(folder)
    except OSError:
        return False


def cache_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables by which the compilers keep what they will run in folders of this user.

    A folder that was asked for is used if it is this user's alone, and is replaced otherwise.
    """
    try:
        return {**NO_HEADERS, **_caches(environment)}
    except OSError:  # nothing can be written, or the working directory is gone
        return dict(NO_HEADERS)


def _caches(environment: Mapping[str, str]) -> dict[str, str]:
    settings = {}
    for name, part in CACHES.items():
        given = environment.get(name)
        if given and is_own(Path(given)):
            settings[name] = given
        elif (folder := _cache(environment)) is not None and is_own(folder / part):
            settings[name] = str(folder / part)
    # Some caches of PyTorch know no variable but this one.
    foreign = _in_the_working_directory() or not is_own(_default_of_inductor())
    if foreign and (folder := _cache(environment)) is not None and is_own(folder / "tmp"):
        settings["TMPDIR"] = str(folder / "tmp")
    if fresh := os.environ.get(_FRESH):
        settings[_FRESH] = fresh
    return settings


def use_own_folders() -> None:
    """Have this process, and those that it starts, keep caches and temporary files where only this user can write.

    To be called before torch is imported, which makes its cache at once.
    """
    with suppress(OSError):  # nothing at all can be written
        _stay_out_of_the_working_directory()
        os.environ.update(cache_settings(os.environ))
        tempfile.tempdir = None


def remove_fresh_cache() -> None:
    """Remove the cache that was made for this process only, if there is one."""
    number, _, folder = os.environ.get(_FRESH, "").partition(":")
    if folder and number == str(os.getpid()):
        del os.environ[_FRESH]
        shutil.rmtree(folder, ignore_errors=True)


def _stay_out_of_the_working_directory() -> None:
    """Where no usual place can be written to, Python and what it starts would use the working directory."""
    if not _in_the_working_directory():
        return
    for place in (*PLACES, str(home_cache())):
        if os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK) and not os.path.samefile(place, os.curdir):
            os.environ["TMPDIR"] = place
            tempfile.tempdir = None
            return


def _in_the_working_directory() -> bool:
    """Whether Python has resorted to it for temporary files; a variable may name it as well."""
    try:
        return os.path.samefile(tempfile.gettempdir(), os.curdir) and not any(
            os.path.samefile(place, os.curdir) for place in (*_told(), *PLACES) if os.path.isdir(place)
        )
    except OSError:  # one of the two is not there
        return False


def _told() -> list[str]:
    return [os.path.abspath(os.environ[name]) for name in VARIABLES if os.environ.get(name)]


def _cache(environment: Mapping[str, str]) -> Path | None:
    """One that stays from run to run where somebody else has not taken its name; else a fresh one."""
    usual = Path(os.path.realpath(tempfile.gettempdir())) / f"onward_{os.geteuid()}"
    lasting: tuple[Path, ...] = () if _in_the_working_directory() else (usual,)
    for folder in (*lasting, home_cache() / "onward"):
        if is_own(folder):
            return folder
    _, _, fresh = environment.get(_FRESH, os.environ.get(_FRESH, "")).partition(":")
    if fresh and is_own(Path(fresh)):
        return Path(fresh)
    made = make_private("onward_", (*temporary_places(), str(home_cache()), os.path.abspath(os.curdir)), [])
    if not made:
        return None
    os.environ[_FRESH] = f"{os.getpid()}:{made}"
    atexit.register(remove_fresh_cache)
    return Path(made)


def _default_of_inductor() -> Path:
    """As PyTorch names it."""
    try:
        user = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        user = f"uid_{os.getuid()}"
    return Path(tempfile.gettempdir()) / ("torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))


def home_cache() -> Path:
    """The user's folder for caches, `~/.cache` unless XDG_CACHE_HOME names another."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~")) / ".cache"


@cache
def _trusted() -> frozenset[int]:
    """Who may own a folder above ours: this user and root, which a container may show as nobody."""
    owners = {0, os.geteuid()}
    with suppress(OSError, ValueError, IndexError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            owners.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return frozenset(owners)
