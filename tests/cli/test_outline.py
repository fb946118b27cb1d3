"""Mistakes in words are found without importing torch, by the same settings that the classes have."""

from __future__ import annotations

import json
import subprocess
import sys
import typing

import pytest

from dapo_trl.cli.outline import EVALUATION, RUN, TRAINER, constant, outline
from dapo_trl.config import DAPOConfig
from dapo_trl.evaluation.settings import ALIASES, EvalConfig
from dapo_trl.run.settings import RunConfig
from dapo_trl.settings import Rule, names_of

from ..conftest import ROOT


@pytest.mark.parametrize(
    ("real", "owners"), [(RunConfig, [RUN]), (DAPOConfig, TRAINER), (EvalConfig, [EVALUATION])], ids=lambda it: str(it)
)
def test_the_outline_is_that_of_the_class(real, owners):
    outlines = [outline(*owner) for owner in owners]
    assert frozenset().union(*map(names_of, outlines)) == names_of(real)
    hints = typing.get_type_hints(real)
    limits = {field.name: field.metadata.get("limits") for field in real.__dataclass_fields__.values()}
    for name in names_of(real):
        owner = next(owner for owner in outlines if name in owner.__annotations__)
        found = owner.__annotations__[name]
        assert found == hints[name] or "Any" in str(found), name  # Any: a type of transformers
        assert limits[name] is None or owner.LIMITS[name] in (limits[name], Rule()), name  # Rule(): of another module


def test_the_short_names_of_eval_are_read():
    assert constant(EVALUATION[0], "ALIASES") == ALIASES and constant(EVALUATION[0], "NOTHING") is None


MISTAKES = [
    (["train", "--lr", "1"], "Did you mean learning_rate?"),
    (["train", "--config", "configs/quickstrat.yaml"], "Did you mean configs/quickstart.yaml?"),
    (["train", "--config", "configs/quickstart.yaml", "--max_steps", "many"], "it must be a whole number"),
    (["train", "--config", "configs/quickstart.yaml", "--loss_type", "dapoo"], "it must be one of dapo, grpo"),
    (["train"], "model is not set"),
    (["train", "configs/quickstart.yaml"], "give it as --config configs/quickstart.yaml"),
    (["eval", "--k", "many"], "eval_samples is 'many'"),
    (["eval", "--batch_tokens", "0"], "batch_tokens is 0 (int): it must be a whole number, 1 or more"),
    (["plan", "--confg", "x"], "Did you mean config?"),
    (["plan", "--devices", "0"], "devices is 0: it must be above 0"),
    (["envs", "show", "math/Aritmetic-v0"], "Did you mean math/Arithmetic-v0"),
]


def test_none_of_them_imports_torch():
    """All in one process: none of them may, and the first that did would be found."""
    code = (
        "import json, sys\nfrom dapo_trl.cli.main import main\nfor request in json.loads(sys.argv[1]):\n"
        "    assert main(request) == 2, request\n    assert 'torch' not in sys.modules, request\n"
    )
    requests = [request for request, _ in MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(requests)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(requests)
    for line, part in zip(lines, (part for _, part in MISTAKES), strict=True):
        assert line.startswith("error: ") and part in line
