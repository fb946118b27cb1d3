"""Shared fixtures: the tiny random model, the shipped model, real data where it is at hand."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
import torch

from dapo_trl.monitor.console import ConsoleHandler

from .support.tiny import save_tiny_model
from .support.warm_start import WarmStart

ROOT = Path(__file__).resolve().parent.parent
SHIPPED_MODEL = ROOT / "models" / "arithmetic-0.8m"
DATA = ROOT.parent / "shared" / "data"

OF_PROCESSES = ("envs/sandbox", "envs/reward_check", "envs/verifiers/code", "envs/verifiers/math/test_sympy_pool.py")
"""Nearly every test in these starts processes and waits for them."""

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for processes of their own are slow."""
    folders = [ROOT / "tests" / name for name in OF_PROCESSES]
    for item in items:
        if "warm_start" in getattr(item, "fixturenames", ()) or any(map(item.path.is_relative_to, folders)):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """What a command that ran in this process has made of the package's logger is undone."""
    yield
    logger = logging.getLogger("dapo_trl")
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, ConsoleHandler)]
    logger.propagate = True


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """A random Qwen2.5-shaped model that takes plain text."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory) -> str:
    """The same with a chat template and room for long prompts."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny_chat"), chat=True, context=4096)


@pytest.fixture
def stand_in(monkeypatch) -> Iterator[Callable[[str], None]]:
    """Puts the stand-in of vLLM in its place, for a model; it is taken away again."""
    from .support import vllm_stand_in  # of all TRL

    for name in ("is_vllm_available", "LLM", "SamplingParams", "VLLMClient"):
        monkeypatch.setattr(f"trl.generation.vllm_generation.{name}", None, raising=False)
    monkeypatch.setitem(sys.modules, "vllm.lora.request", None)
    with mock.patch.dict(os.environ):  # TRL sets vLLM's there
        yield vllm_stand_in.install


@pytest.fixture(scope="session")
def warm_start() -> Iterator[WarmStart]:
    """Starts commands in processes of their own that do not import torch anew."""
    helper = WarmStart()
    yield helper
    helper.close()


@pytest.fixture
def data() -> Path:
    """Real data sets, which lie beside the checkout on some machines only."""
    if not DATA.is_dir():
        pytest.skip(f"the real data sets are not at {DATA}")
    return DATA
