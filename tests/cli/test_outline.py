"""Mistakes in words are found without importing torch, by the same settings that the classes have."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import typing

import pytest

from dapo_trl.cli.main import main
from dapo_trl.cli.outline import EVALUATION, RUN, TRAINER, UNKNOWN, constant, groups, outline
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
        assert limits[name] is None or owner.DECLARED[name].limits in (limits[name], Rule()), (
            name
        )  # Rule(): of another module


def test_the_short_names_of_eval_are_read():
    assert constant(EVALUATION[0], "ALIASES") == ALIASES and constant(EVALUATION[0], "NOTHING") is None


@pytest.mark.parametrize(
    ("real", "owners"),
    [((RunConfig, DAPOConfig), (RUN, *TRAINER)), ((EvalConfig,), (EVALUATION,))],
    ids=["train", "eval"],
)
def test_every_setting_is_in_one_group(real, owners):
    found = groups(*owners)
    named = [
        word for path, _ in owners for _, words in (constant(path, "GROUPS") or {}).values() for word in words.split()
    ]
    assert sorted(named) == sorted(one.name for name in found if name != "other" for one in found[name][1])
    members = [one.name for _, settings in found.values() for one in settings]
    assert sorted(members) == sorted(frozenset().union(*map(names_of, real))), "declare it in GROUPS"
    own = {name for owner in real for name in owner.__annotations__ if name in names_of(owner)}
    rest = {one.name for one in found.get("other", ("", []))[1]}
    assert not rest & own and all(sentence for sentence, _ in found.values())


@pytest.mark.parametrize(
    ("real", "owners"), [((RunConfig, DAPOConfig), (RUN, *TRAINER)), ((EvalConfig,), (EVALUATION,))]
)
def test_the_defaults_are_those_of_the_classes(real, owners):
    fields = {name: field for owner in real for name, field in owner.__dataclass_fields__.items()}
    unknown = []
    for _, settings in groups(*owners).values():
        for one in settings:
            field = fields[one.name]
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            if one.default is UNKNOWN:
                unknown.append(one.name)
            else:
                assert one.default == getattr(default, "value", default), one.name
            assert one.doc == " ".join(field.metadata["help"].split()).replace("%%", "%") or one.name not in own_of(
                real
            )
    assert unknown in ([], ["optim"])  # which transformers computes


def own_of(real) -> set[str]:
    return {name for owner in real for name in owner.__annotations__}


def test_help_shows_one_group_or_one_setting(capsys):
    def shown(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(words)
        assert not end.value.code
        return capsys.readouterr().out

    everything = shown("train", "--help")
    assert (
        "--epsilon_high 0.28" in everything and "--learning_rate 1.0e-06" in everything and "--env null" in everything
    )
    assert "--dataloader_in_order" not in everything and "dataloader_in_order" in everything  # in "other", by name
    assert [line[:-1] for line in everything.splitlines() if line.endswith(":") and line[0] != " "][2:] == [
        *groups(RUN, *TRAINER)
    ]
    algorithm = shown("train", "--help", "algorithm")
    assert "--epsilon_high 0.28" in algorithm and "None: the same as epsilon" in " ".join(algorithm.split())
    assert "--overlong_shape" not in algorithm and "usage" not in algorithm
    assert "--overlong_shape linear" in shown("train", "--help", "overlong-shape")
    assert "--k 32" in shown("eval", "--help") and "--k 32" in shown("eval", "--help", "measurement")
    assert main(["train", "--help", "algoritm"]) == 2
    assert "Did you mean algorithm? The groups are model, task" in capsys.readouterr().err


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
