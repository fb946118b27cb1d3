"""Running programs that nobody has read: values come out, verdicts are made elsewhere.

    from envs.sandbox import Program, Sandbox

    with Sandbox() as sandbox:
        results = sandbox.run(Program("def add(a, b): return a + b", mode="call", entry_point="add"), [[1, 2]])

Linux only; see docs/sandbox.md for what is covered and what is not.
"""

from .isolation import Isolation
from .open import AnySandbox, open_sandbox
from .sandbox import Sandbox, shared_sandbox
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
