"""TensorBoard, trackio, Weights & Biases and others (``report_to``) under the names of `metrics.METRICS`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.integrations import integration_utils


@contextmanager
def grouped_names() -> Iterator[None]:
    """Give trackers every metric under its own group.

    Transformers puts ``train/`` before all names, so that a tracker shows them in a single heap. Names that have a
    group of their own (``accuracy/sampled``) keep it here; names without one stay ``train/loss``.
    """
    before = integration_utils.rewrite_logs

    def rewritten(logs: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in logs.items() if _has_group(name)}
        return kept | before({name: value for name, value in logs.items() if name not in kept})

    integration_utils.rewrite_logs = rewritten
    try:
        yield
    finally:
        integration_utils.rewrite_logs = before


def _has_group(name: str) -> bool:
    return "/" in name and not name.startswith(("eval_", "test_"))
