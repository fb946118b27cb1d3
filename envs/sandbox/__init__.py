"""Running programs that nobody has read: values come out, verdicts are made elsewhere.

    from envs.sandbox import Program, Sandbox

    with Sandbox() as sandbox:
        results = sandbox.run(Program("def add(a, b): return a + b", mode="call", entry_point="add"), [[1, 2]])

Linux only; see docs/sandbox.md for what is covered and what is not.

types.py           programs, limits and results
task.py            what every sandbox does, and a program's way through it
sandbox.py         `Sandbox`: the one on this machine
fusion/            `FusionSandbox`: the one on a farm
isolation.py       levels of isolation, and how each is started
seccomp_filter.py  the system calls that a program may make
escape_tests.py    what must fail inside, tried before a sandbox is used
zygote_client.py   the sandbox's processes as seen from outside
inside/            what runs behind the wall
"""

from functools import cache

from .fusion.sandbox import SCHEME, FusionSandbox
from .isolation import Isolation
from .sandbox import Sandbox, shared_sandbox
from .task import AnySandbox
from .types import Limits, Program, Result, SandboxUnavailable, Status

__all__ = [
    "AnySandbox",
    "Isolation",
    "Limits",
    "Program",
    "Result",
    "Sandbox",
    "SandboxUnavailable",
    "Status",
    "open_sandbox",
    "shared_sandbox",
]


@cache
def open_sandbox(
    name: str = "auto", packages: tuple[str, ...] = (), modules: tuple[tuple[str, str], ...] = ()
) -> AnySandbox:
    """Return the one sandbox of this process with these settings, so that all its users share its workers.

    Args:
        name: "auto", an isolation level, or the address of a farm: "fusion+http://host:port". See `Sandbox` and
            `FusionSandbox`.
        packages: Installed packages that programs may import besides the standard library.
        modules: Modules of our own for the sides of dialogs, as pairs of name and text.

    Raises:
        ValueError: It is none of these.
    """
    if name.startswith(SCHEME):
        return FusionSandbox(name, packages=packages, modules=dict(modules))
    return shared_sandbox(name, packages, modules)
