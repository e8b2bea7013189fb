"""Folders that only this user can change: for sockets, keys, and caches from which libraries load code.

A temporary directory is shared with all users of the host, and any of them may have put files there. A folder counts
as private if it belongs to this user, nobody else may write to it, and nobody else can replace it. The last needs a
look at the folders above: who may write to one of them can rename its entries, unless it has the sticky bit, as /tmp.
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
"""Fallbacks for temporary files where `VARIABLES` name no usable folder."""
VARIABLES = ("TMPDIR", "TEMP", "TMP")
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Caches of PyTorch's compilers: pickles, C++ and shared libraries, which later processes load and run."""
NO_HEADERS = {"TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0"}
"""Turns off precompiled headers, which PyTorch keeps in the temporary directory wherever the caches are."""
_FRESH = "ONWARD_FRESH_CACHE"
"""Process id and folder of a cache for this process only; an environment variable, because it must survive `exec`."""


def temporary_places() -> list[str]:
    """Folders for temporary files, best first; never the working directory, which is Python's last fallback."""
    chosen = () if _in_the_working_directory() else (tempfile.gettempdir(),)
    return list(dict.fromkeys((*chosen, *_configured_places(), *PLACES)))


def why_unsafe(folder: Path) -> str:
    """A clause that says how other users could replace or change `folder`; empty if they cannot."""
    whole = Path(os.path.realpath(folder))
    for path in (whole, *whole.parents):
        found = path.stat()
        if found.st_uid not in _trusted():
            return f"'{path}' belongs to user {found.st_uid}"
        if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
            return f"others may write to '{path}'"
    return ""


def make_private(prefix: str, places: Iterable[str], problems: list[str]) -> str:
    """Create a folder of mode 0700 in the first of `places` where no other user can replace it; empty if there is none.

    Args:
        prefix: of its name.
        places: folders to try.
        problems: a clause is appended for every place that is unsuitable.
    """
    for place in places:
        try:
            if reason := why_unsafe(Path(place)):
                problems.append(reason)
                continue
            return tempfile.mkdtemp(prefix=prefix, dir=os.path.realpath(place))
        except OSError as error:
            problems.append(f"'{place}': {error.strerror}")
    return ""


def is_own(folder: Path) -> bool:
    """Create `folder` if it does not exist; whether it is private to this user and writable."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return is_ours(folder) and os.access(folder, os.W_OK | os.X_OK)


def is_ours(folder: Path) -> bool:
    """Whether `folder` exists and is private to this user."""
    try:
        found = folder.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
        return ours and not why_unsafe(folder)
    except OSError:
        return False


def cache_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that keep the caches of PyTorch's compilers in private folders.

    A folder that `environment` names already is kept if it is private, and replaced otherwise.
    """
    try:
        return {**NO_HEADERS, **_caches(environment)}
    except OSError:  # no folder is writable, or the working directory was removed
        return dict(NO_HEADERS)


def _caches(environment: Mapping[str, str]) -> dict[str, str]:
    settings = {}
    for name, part in CACHES.items():
        configured = environment.get(name)
        if configured and is_own(Path(configured)):
            settings[name] = configured
        elif (folder := _cache(environment)) is not None and is_own(folder / part):
            settings[name] = str(folder / part)
    # Some caches of PyTorch follow only TMPDIR.
    foreign = _in_the_working_directory() or not is_own(_default_of_inductor())
    if foreign and (folder := _cache(environment)) is not None and is_own(folder / "tmp"):
        settings["TMPDIR"] = str(folder / "tmp")
    if fresh := os.environ.get(_FRESH):
        settings[_FRESH] = fresh
    return settings


def use_own_folders() -> None:
    """Keep caches and temporary files of this process and its children in private folders.

    To be called before torch is imported, because the import creates a cache.
    """
    with suppress(OSError):  # no folder is writable
        _stay_out_of_the_working_directory()
        os.environ.update(cache_settings(os.environ))
        tempfile.tempdir = None


def remove_fresh_cache() -> None:
    """Remove the cache that was created for this process only, if there is one."""
    number, _, folder = os.environ.get(_FRESH, "").partition(":")
    if folder and number == str(os.getpid()):
        del os.environ[_FRESH]
        shutil.rmtree(folder, ignore_errors=True)


def _stay_out_of_the_working_directory() -> None:
    """Set TMPDIR to another writable folder where Python would fall back on the working directory."""
    if not _in_the_working_directory():
        return
    for place in (*PLACES, str(home_cache())):
        if os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK) and not os.path.samefile(place, os.curdir):
            os.environ["TMPDIR"] = place
            tempfile.tempdir = None
            return


def _in_the_working_directory() -> bool:
    """Whether Python has fallen back on the working directory for temporary files, without being configured to."""
    try:
        return os.path.samefile(tempfile.gettempdir(), os.curdir) and not any(
            os.path.samefile(place, os.curdir) for place in (*_configured_places(), *PLACES) if os.path.isdir(place)
        )
    except OSError:  # one of the two does not exist
        return False


def _configured_places() -> list[str]:
    return [os.path.abspath(os.environ[name]) for name in VARIABLES if os.environ.get(name)]


def _cache(environment: Mapping[str, str]) -> Path | None:
    """A cache folder shared by all runs of this user, or a new one where another user occupies its name."""
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
    """The default cache folder of TorchInductor, named as PyTorch names it."""
    try:
        user = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        user = f"uid_{os.getuid()}"
    return Path(tempfile.gettempdir()) / ("torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))


def home_cache() -> Path:
    """`XDG_CACHE_HOME`, or `~/.cache`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    return Path(configured) if os.path.isabs(configured) else Path(os.path.expanduser("~")) / ".cache"


@cache
def _trusted() -> frozenset[int]:
    """User ids that may own a folder above ours: this user and root, which some containers map to nobody."""
    owners = {0, os.geteuid()}
    with suppress(OSError, ValueError, IndexError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            owners.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return frozenset(owners)
