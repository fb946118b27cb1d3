"""The harness by which verifiers gets the model's turns from this package. Imported with verifiers only.

verifiers names harnesses by module; `HARNESS` is the name of this one.
"""

from __future__ import annotations

import sys
from typing import Any

import httpx
import verifiers.v1 as vf
from verifiers.v1.harness import HarnessSession

__all__ = ["PolicyHarness"]
HARNESS = "dapo_trl_policy"
sys.modules.setdefault(HARNESS, sys.modules[__name__])


class PolicyHarnessConfig(vf.HarnessConfig):
    """No settings beyond those of every harness."""


class PolicyHarness(vf.Harness[PolicyHarnessConfig]):
    """A chat without tools: one request to the model for each turn, from this process."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def session(self, *args: Any, **kwargs: Any) -> HarnessSession:
        """Return the handle of one rollout."""
        return _PolicySession(self, *args, **kwargs)

    async def launch(self, *args: Any, **kwargs: Any) -> Any:
        """Raise: turns are taken by the session."""
        raise NotImplementedError


class _PolicySession(HarnessSession):
    async def turn(self, messages: Any = None) -> None:
        """Ask the model for its next turn, through verifiers' own interception, which records it and stops it."""
        spoken = (
            list(self.trace.branches[-1].messages) if self.trace.branches else self._opening(with_prompt=not messages)
        )
        body = {
            "model": self.ctx.model,
            "messages": [message.model_dump(exclude_none=True) for message in [*spoken, *(messages or [])]],
        }
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=False) as client:
            answer = await client.post(
                f"{self.endpoint.rstrip('/')}/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {self.secret}"},
            )
        if answer.is_error and self.trace.stop_condition is None:
            raise RuntimeError(f"the model's turn failed: {answer.status_code} {answer.text[:300]}")

    def _opening(self, *, with_prompt: bool) -> list[Any]:
        """Return the messages before the model's first turn, of which the task's prompt is one unless a user opens."""
        system, prompt = self.harness.resolve_prompt(self.data)
        found: list[Any] = [] if system is None else [vf.SystemMessage(content=system)]
        if with_prompt and prompt is not None:
            found += [vf.UserMessage(content=prompt)] if isinstance(prompt, str) else prompt
        return found
