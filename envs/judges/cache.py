"""Verdicts on disk: one file for each, named by a hash of all that decides it, for any number of processes."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from .rubric import Rubric, Scores


class Cache:
    """A folder of verdicts.

    A file is written under another name and put in its place at once, so that no process reads half of one. One that
    was torn all the same, or that holds anything but scores of the rubric, is no verdict and is written anew.

    Args:
        folder: Made if it is not there.
        rubric: The criteria that the scores are of.

    Raises:
        ValueError: The folder cannot be made or written to.
    """

    def __init__(self, folder: Path, rubric: Rubric) -> None:
        self._folder, self._rubric = folder, rubric
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"Judge: cache={str(folder)!r} cannot be made: {error.strerror}") from error
        if not os.access(folder, os.W_OK):
            raise ValueError(f"Judge: cache={str(folder)!r} cannot be written to")

    def get(self, key: str) -> list[dict[str, int]] | None:
        """Return the votes of a verdict, None if it is not known."""
        try:
            found = json.loads(self._path(key).read_bytes())
            if found["key"] != key or not found["votes"]:
                return None
            return [self._rubric.read(vote) for vote in found["votes"]]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def put(self, key: str, votes: Sequence[Scores]) -> None:
        """Keep a verdict; a full disk costs the verdict nothing but its place here."""
        path = self._path(key)
        fresh = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            path.parent.mkdir(exist_ok=True)
            fresh.write_text(json.dumps({"key": key, "votes": [dict(vote) for vote in votes]}), encoding="utf-8")
            os.replace(fresh, path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
