"""A sandbox of every level that works on this machine."""

import pytest

from envs.sandbox import Sandbox, SandboxUnavailable


@pytest.fixture(scope="session", params=["bubblewrap", "landlock"])
def sandbox(request):
    with Sandbox(request.param) as sandbox:
        try:
            assert sandbox.isolation == request.param
        except SandboxUnavailable as reason:
            pytest.skip(str(reason))
        yield sandbox


@pytest.fixture(scope="session")
def any_sandbox():
    """One sandbox of the strongest level, for what does not depend on it."""
    with Sandbox() as sandbox:
        try:
            assert sandbox.isolation
        except SandboxUnavailable as reason:
            pytest.skip(str(reason))
        yield sandbox
