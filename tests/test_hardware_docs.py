"""docs/hardware.md: its commands are read by the programs that they name, its figures are the planner's."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
import sys

import pytest
from accelerate.commands.launch import launch_command_parser
from trl.scripts.vllm_serve import ScriptArguments, build_command

from dapo_trl.cli.main import main
from dapo_trl.plan.devices import placement, planned_config
from dapo_trl.run.settings import load_settings

from .conftest import ROOT

PAGE = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
TEXT = "\n".join(BLOCKS).replace("\\\n", " ")


def commands(start: str, text: str = TEXT) -> list[list[str]]:
    """The commands of the page that begin so, as words; what the shell fills in is 1."""
    found = re.findall(rf"{start} .*?(?=&|\n)", text)
    return [shlex.split(re.sub(r"\$\(?\(?\w+[^ ]*", "1", command)) for command in found]


def test_every_launch_is_one_that_accelerate_and_the_trainer_take(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands("accelerate launch", re.sub("[\"']", " ", TEXT))  # some are within other commands
    assert len(found) == 5
    for words in found:
        launch = launch_command_parser().parse_args(words[2:])
        assert launch.module and launch.training_script == "dapo_trl"
        assert launch.training_script_args[0] == "train"
        given = launch.training_script_args[1:]
        last = next(i for i, word in enumerate(given) if i and word.startswith("--"))
        where = placement(launch.config_file, launch.num_processes)
        run, args, _ = load_settings(given[1:last], given[last:], make=planned_config("H100 80GB", where))
        assert args.updates_per_rollout > 1 and run.model.startswith("Qwen/")


def test_every_server_is_the_one_that_trl_starts(monkeypatch):
    """TRL 1.16's own command for the same model, as far as it says something that is not vLLM's default anyway."""
    found = commands("vllm serve")
    assert len(found) == 3 and TEXT.count("VLLM_SERVER_DEV_MODE=1") == 3
    for words in found:
        given = dict(zip(words[3::2], words[4::2], strict=True))
        size, length = int(given.pop("--tensor-parallel-size")), int(given.pop("--max-model-len"))
        command = build_command(ScriptArguments(model=words[2], tensor_parallel_size=size, max_model_len=length))
        theirs = dict(zip(command[5::2], command[6::2], strict=False))
        assert theirs["--tensor-parallel-size"] == str(size) and theirs["--max-model-len"] == str(length)
        needed = ("--weight-transfer-config", "--logprobs-mode", "--max-logprobs")
        assert given == {name: theirs[name] for name in needed}


def test_every_setting_and_option_that_is_named_exists():
    from dapo_trl import DAPOConfig

    launch = {action.dest for action in launch_command_parser()._actions}
    plan = {
        "card",
        "accelerate",
        "devices",
        "pass_rate",
        "calibrate",
        "calibration",
        "completion_tokens",
        "prompt_tokens",
        "rows",
        "json",
    }
    known = launch | plan | {field.name for field in dataclasses.fields(DAPOConfig)} | {"model"}
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)):
        for name in re.findall(r"(?:^|\s)--(\w+)", span):
            assert name in known, name


def test_the_plan_on_the_page_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (found,) = re.findall(r"^dapo-trl plan .*?$", "\n".join(BLOCKS).replace("\\\n", " "), flags=re.MULTILINE)
    assert main([*shlex.split(found)[1:], "--max_steps", "100"]) == 0
    assert "It fits" in capsys.readouterr().out


def rows_of_the_page() -> dict[tuple[str, str], list[str]]:
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 8 and cells[0].startswith("`"):
            found[cells[0], cells[1]] = cells[2:]
    return found


@pytest.mark.slow
def test_the_tables_are_what_the_planner_says(monkeypatch):
    """One model of each row; all of them would take minutes."""
    spec = importlib.util.spec_from_file_location("hardware_table", ROOT / "scripts" / "hardware_table.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hardware_table", module)
    spec.loader.exec_module(module)
    page = rows_of_the_page()
    rows = [*module.ONE_CARD, *module.MANY_CARDS]
    assert len(page) == len(rows)
    for number, row in enumerate(rows):
        name = f"`{row.hardware}`" + (f" + `{row.accelerate}`" if row.accelerate else "")
        size = ("0.5b", "1.5b", "3b")[number % 3]
        shown = page[name, row.devices][module.SIZES.index(size)]
        found = module.cell(module.planned(row, size))
        assert shown.startswith("(") == found.startswith("("), (name, size)
        assert float(shown.strip("()")) == pytest.approx(float(found.strip("()")), rel=0.05), (name, size)
