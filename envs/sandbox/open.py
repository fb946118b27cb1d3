"""`open_sandbox`: a sandbox by its name, here or on a farm."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, Protocol

from .fusion.sandbox import SCHEME, FusionSandbox
from .sandbox import shared_sandbox
from .types import Limits, Program, Result, Status, Stop


class AnySandbox(Protocol):
    """What `Sandbox` and `FusionSandbox` have in common."""

    @property
    def isolation(self) -> str: ...

    def run(
        self,
        program: Program,
        inputs: Sequence[Any],
        limits: Limits | None = None,
        *,
        stop_at: Collection[Status] = (),
        stop: Stop | None = None,
    ) -> tuple[Result, ...]: ...

    def close(self) -> None: ...


@cache
def open_sandbox(name: str = "auto", packages: tuple[str, ...] = ()) -> AnySandbox:
    """Return the one sandbox of this process with these settings, so that all its users share its workers.

    Args:
        name: "auto", an isolation level, or the address of a farm: "fusion+http://host:port". See `Sandbox` and
            `FusionSandbox`.
        packages: Installed packages that programs may import besides the standard library.

    Raises:
        ValueError: It is none of these.
    """
    if name.startswith(SCHEME):
        return FusionSandbox(name, packages=packages)
    return shared_sandbox(name, packages)
