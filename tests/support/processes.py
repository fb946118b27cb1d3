"""What runs on this machine, for tests that leave nothing behind."""

import contextlib
import os
import signal
import time
from pathlib import Path


def processes():
    """Process ids with their parents' ids, of everything that runs."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def descendants(pid):
    parents = processes()
    found, last = set(), {pid}
    while last:
        last = {child for child, parent in parents.items() if parent in last}
        found |= last
    return found


def gone(pids, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not pids & processes().keys():
            return True
        time.sleep(0.05)
    return False


def kill(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
