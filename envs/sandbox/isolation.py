"""The levels of isolation, and what each takes to start the zygote."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import sys
import sysconfig
from enum import StrEnum
from pathlib import Path

from .seccomp_filter import filter_code
from .types import SandboxUnavailable
from .zygote_client import Launch

_INSIDE = Path(__file__).with_name("inside")
_SITE_DIRECTORIES = ("site-packages", "dist-packages")
_TIME_ZONES = ("/etc/localtime", "/usr/share/zoneinfo")
_SYSTEM = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_LIBRARY_PLACES = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/lib/*-linux-gnu*", "/lib64", "/lib")
_LIBRARIES = ("bz2", "crypt", "crypto", "lzma", "sqlite3", "ssl", "uuid", "z")
"""Shared libraries that extension modules of the standard library are linked to, in some builds of Python."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
# What modules ask to be done after every fork, such as seeding `random`, takes longer than the fork. The zygote has no
# threads and seeds by itself, so that it can leave them out.
_BOOT = """
import os, sys
register_at_fork, os.register_at_fork = os.register_at_fork, lambda **hooks: None
sys.path.append(sys.argv[1])
from inside import zygote
zygote.main(int(sys.argv[2]), register_at_fork)
"""


class Isolation(StrEnum):
    """How programs are kept apart from the machine; each member equals its plain string."""

    BUBBLEWRAP = "bubblewrap"
    """Namespaces with a file system of their own, on top of all that `LANDLOCK` has."""
    LANDLOCK = "landlock"
    """Landlock, a seccomp filter, resource limits and a user of its own; works without namespaces."""
    UNSAFE = "unsafe"
    """None: programs can do whatever this process can. Only the resource limits hold."""


def launch(isolation: Isolation, packages: tuple[str, ...], modules: dict[str, str]) -> Launch:
    """Work out how to start a zygote.

    Args:
        isolation: The level.
        packages: Names of installed packages that programs may import, besides the standard library.
        modules: Modules of our own for the sides of dialogs, as names and texts.

    Raises:
        SandboxUnavailable: Something that the level needs is not installed.
        ValueError: A package is not installed.
    """
    origins = [_origin(name) for name in packages]
    library = Path(sysconfig.get_path("stdlib"))
    readable = [*_TIME_ZONES, *_shared_libraries(), *_library_entries(library), *_package_entries(origins)]
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    is_confined = isolation is not Isolation.UNSAFE
    settings = {
        "own_path": str(_INSIDE.parent),
        "packages": packages,
        "package_paths": [str(origin.parent) for origin in origins],
        "modules": modules,
        "is_confined": is_confined,
        "needs_landlock": isolation is Isolation.LANDLOCK,
        "readable": readable,
        "listable": [str(library)],
        "devices": list(_DEVICES),
        "keep_reading": not all(map(_is_public, (library, *origins))),
        "filter": _filter().hex() if is_confined else "",
    }
    # Without -E, which would leave the hash seed to chance; the environment holds nothing else that matters.
    command = [interpreter, "-P", "-s", "-S", "-B", "-X", "utf8", "-c", _BOOT, str(_INSIDE.parent)]
    environment = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if isolation is Isolation.BUBBLEWRAP:
        hidden = [str(library / name) for name in _SITE_DIRECTORIES if (library / name).is_dir()]
        hidden += [str(path) for path in Path("/usr/lib/python3").glob("dist-packages")]
        shown = [*_SYSTEM, interpreter, str(library), *_interpreter_library(), str(_INSIDE), *_TIME_ZONES]
        command = [*_bubblewrap(shown, hidden, _package_entries(origins)), *command]
    return Launch(_expendable(command), environment, settings)


def _expendable(command: list[str]) -> list[str]:
    """Let the system, when it runs out of memory, end what runs here before anything else."""
    return ["/bin/sh", "-c", 'echo 1000 >/proc/self/oom_score_adj; exec "$@"', "sh", *command]


def _bubblewrap(shown: list[str], hidden: list[str], packages: list[str]) -> list[str]:
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxUnavailable("the command bwrap is not installed: install the system's package 'bubblewrap'")
    command = [program, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:  # the zygote gives each program a user of its own
        command += ["--cap-drop", "ALL"]
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_DAC_READ_SEARCH"):
            command += ["--cap-add", capability]
    else:
        command += ["--unshare-user"]
    for path in shown:
        is_link = os.path.islink(path) and os.path.isdir(path)
        command += ["--symlink", os.readlink(path), path] if is_link else ["--ro-bind-try", path, path]
    for path in hidden:
        command += ["--tmpfs", path]
    for path in packages:
        command += ["--ro-bind", path, path]
    for path in hidden:
        command += ["--remount-ro", path]
    for path in _DEVICES:
        command += ["--dev-bind", path, path]
    return [*command, "--remount-ro", "/", "--chdir", "/", "--"]


def _filter() -> bytes:
    try:
        return filter_code()
    except (ImportError, RuntimeError) as error:
        raise SandboxUnavailable(
            f"no seccomp filter can be made ({error}): pip install pyseccomp, and install the system's libseccomp "
            "(package 'libseccomp2' on Debian and Ubuntu, 'libseccomp' elsewhere)"
        ) from error


def _origin(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"packages={package!r} is not an installed package: install it, or leave it out")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _package_entries(origins: list[Path]) -> list[str]:
    """Return the directories of packages, with those of the libraries that their wheels bring along."""
    candidates = [path for origin in origins for path in (origin, origin.with_name(f"{origin.name}.libs"))]
    return [str(path) for path in candidates if path.is_dir()]


def _library_entries(library: Path) -> list[str]:
    """Return what the standard library consists of, without the packages that are installed next to it."""
    return [str(path) for path in library.iterdir() if path.name not in _SITE_DIRECTORIES]


def _shared_libraries() -> list[str]:
    """Return those that modules may still have to load."""
    places = [directory for place in _LIBRARY_PLACES for directory in Path("/").glob(place[1:])]
    found = {path.resolve() for place in places for name in _LIBRARIES for path in place.glob(f"lib{name}.so*")}
    return sorted(map(str, found))


def _interpreter_library() -> list[str]:
    """Return the interpreter's shared library, in the directory where it was built to be looked for."""
    directory = sysconfig.get_config_var("LIBDIR")
    return [str(path) for path in Path(directory).glob("libpython*.so*")] if directory else []


def _is_public(path: Path) -> bool:
    """Whether any user may read what is in a directory."""
    return all(directory.stat().st_mode & stat.S_IXOTH for directory in (path, *path.parents))
