"""``dapo-trl plan`` as people run it: what it says, its exit codes, and that it loads nothing heavy."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil

import datasets
import pytest
import torch

from dapo_trl.cli.main import main
from dapo_trl.run import calibration

from ..conftest import ROOT, SHIPPED_MODEL

CONFIGS = ROOT / "configs"
QUICKSTART = str(CONFIGS / "quickstart.yaml")
MODELS = CONFIGS / "models"
GPU = [
    "--config",
    *(str(CONFIGS / name) for name in ("algorithm/textbook.yaml", "task/arithmetic.yaml", "hardware/lora-24gb.yaml")),
    *("--prompt_tokens", "200", "--max_completion_length", "512"),
]


@pytest.fixture
def without_remedies(monkeypatch):
    """A plan is not made again with every change that might help."""
    for name in ("remedies", "uses"):
        monkeypatch.setattr(f"dapo_trl.plan.remedies.{name}", lambda plan, replan: [])


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def plan(capsys, *arguments: str) -> tuple[int, str]:
    code = main(["plan", *arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def as_json(capsys, *arguments: str) -> tuple[int, dict]:
    code, text = plan(capsys, *arguments, "--json")
    return code, json.loads(text)


def test_prompts_are_planned_with_their_examples(capsys):
    asked = (["--config", QUICKSTART], ["--config", QUICKSTART, "--few_shot", "2", "--system_prompt", "x" * 100])
    plain, longer = (int(re.search(r"prompts: (\d+) tokens", plan(capsys, *flags)[1])[1]) for flags in asked)
    assert longer > plain + 200


def test_the_quick_start_fits_here(capsys):
    code, text = plan(capsys, "--config", QUICKSTART)
    assert code == 0 and "It fits" in text
    assert "828,672 weights" in text
    assert "8 groups x 8 = 64 completions, 8 updates" in text
    assert "160 optimizer steps on 20 rollout batches" in text
    assert "16 completions, 1 pass a device" in text
    assert "at most" not in text[text.index("tokens of a rollout batch") : text.index("time:")], (
        "it depends on the rate"
    )
    assert "(at this pass rate, with completions each as long as the limit;\n  at any other up to 55,296" in text


def test_json_holds_the_same_and_adds_up(capsys):
    code, found = as_json(capsys, "--config", QUICKSTART)
    assert code == 0 and found["fits"] and found["parameters"] == {"trained": 828_672, "frozen": 0, "in_4_bits": 0}
    memory, schedule = found["memory"], found["schedule"]
    assert memory["peak"] == sum(memory["held"].values()) + sum(memory["phases"][memory["fullest"]].values())
    assert schedule["completions"] == 64 and schedule["updates"] == 8
    assert schedule["trained_tokens"] <= 64 * 96
    assert schedule["seconds_per_step"] is None


DOES_NOT_FIT = {
    "LoRA": [*GPU, "--card", "RTX 4060", "--max_completion_length", "4096"],
    "full": [*GPU, "--card", "RTX 3060", "--lora_rank", "0"],
    "vLLM": [
        *("--config", str(CONFIGS / "algorithm" / "paper.yaml"), str(CONFIGS / "task" / "arithmetic.yaml")),
        *(str(CONFIGS / "hardware" / "8x80gb-vllm.yaml"), "--accelerate", str(CONFIGS / "accelerate" / "ddp.yaml")),
        *("--card", "A100 40GB", "--vllm_enable_sleep_mode", "false"),
    ],
}


@pytest.fixture(scope="module")
def shallow(tmp_path_factory) -> str:
    """Qwen2.5-7B with 4 of its 28 layers: as wide, and planned in no time."""
    shape = json.loads((MODELS / "qwen2.5-7b.json").read_text())
    path = tmp_path_factory.mktemp("shape") / "shallow.json"
    path.write_text(json.dumps({**shape, "num_hidden_layers": 4}))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", DOES_NOT_FIT.values(), ids=DOES_NOT_FIT)
def test_what_does_not_fit_exits_1_with_changes_that_do_what_is_said(request, capsys, shallow, arguments):
    """Planned with the flags of a change, the run needs what the list says that it would need."""
    arguments = [*arguments, "--model", shallow]
    code, found = as_json(capsys, *arguments)
    assert code == 1 and not found["fits"]
    peak, best = found["memory"]["peak"], found["changes"][:3]
    assert len(best) == 3 and all(change["saves"] > 0 for change in best)
    assert best == sorted(best, key=lambda change: (not change["fits"], -change["saves"]))
    assert any(change["fits"] for change in found["changes"])
    request.getfixturevalue("without_remedies")
    for change in found["changes"]:
        code, changed = as_json(capsys, *arguments, *shlex.split(change["flags"]))
        assert changed["memory"]["peak"] == change["peak"] == peak - change["saves"]
        assert (code == 0) == change["fits"]


def test_memory_that_is_left_is_spent_as_said(request, capsys, shallow):
    arguments = [*GPU, "--card", "RTX 4090", "--model", shallow]
    code, text = plan(capsys, *arguments)
    assert code == 0 and "The memory that is left takes, each by itself:\n  1. no gradient checkpointing" in text
    _, found = as_json(capsys, *arguments)
    request.getfixturevalue("without_remedies")
    assert len(found["changes"]) == 4
    for change in found["changes"]:
        code, changed = as_json(capsys, *arguments, *shlex.split(change["flags"]))
        assert code == 0 and changed["memory"]["peak"] == change["peak"] and not changed["changes"]


@pytest.mark.parametrize(
    ("devices", "flags"),
    [
        (1, "--gradient_accumulation_steps 64 --steps_per_generation 1024"),
        (128, "--per_device_train_batch_size 4 --gradient_accumulation_steps 1"),
        (3, None),  # does not divide 512
    ],
)
def test_the_papers_batch_is_restored_on_any_number_of_cards(capsys, without_remedies, shallow, devices, flags):
    arguments = ["--config", "paper", "gsm8k", "full-80gb", "--model", shallow, "--card", "H100 80GB"]
    arguments += ["--prompt_tokens", "200", "--rows", "7473", "--devices", str(devices)]
    _, found = as_json(capsys, *arguments)
    if flags is None:
        assert found["paper_batch"] is None
        return
    assert found["paper_batch"]["flags"] == flags
    code, text = plan(capsys, *arguments)
    assert "the paper's rollout batch is 512 groups x 16 = 8,192 completions, 16 updates; here (" in text
    code, restored = as_json(capsys, *arguments, *shlex.split(flags))
    schedule = restored["schedule"]
    assert [schedule[name] for name in ("groups", "group_size", "updates")] == [512, 16, 16]
    assert restored["paper_batch"] is None and restored["memory"]["peak"] == found["paper_batch"]["peak"]
    assert (code == 0) == found["paper_batch"]["fits"]


def test_another_objective_has_no_batch_of_the_papers(capsys):
    assert as_json(capsys, "--config", QUICKSTART)[1]["paper_batch"] is None


@pytest.mark.slow
def test_a_model_need_not_be_shared_out(capsys, shallow):
    """ZeRO-3 gathers the weights to generate; four bits on each device take less."""
    arguments = [*GPU, "--model", shallow, "--quantization", "4bit", "--lora_rank", "8", "--card", "RTX 4060"]
    arguments += ["--accelerate", str(CONFIGS / "accelerate" / "zero3.yaml"), "--devices", "2"]
    code, found = as_json(capsys, *arguments, "--max_completion_length", "256", "--steps_per_generation", "8")
    flags = "--accelerate configs/accelerate/ddp.yaml --devices 2"
    assert code == 1 and [change["flags"] for change in found["changes"] if change["fits"]] == [flags]


def test_the_page_is_readable(capsys, shallow):
    code, text = plan(capsys, *DOES_NOT_FIT["LoRA"], "--model", shallow)
    assert code == 1 and "It does not fit" in text and "\n  1. " in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.slow
def test_an_adapter_and_four_bits_are_counted(capsys):
    arguments = [*GPU, "--model", str(MODELS / "qwen2.5-1.5b.json"), "--card", "RTX 4090", "--max_steps", "100"]
    code, found = as_json(capsys, *arguments, "--lora_rank", "16", "--quantization", "4bit")
    assert code == 0
    assert found["parameters"] == {"trained": 18_464_768, "frozen": 1_543_714_304, "in_4_bits": 1_310_195_712}


@pytest.mark.slow
def test_devices_of_an_accelerate_file(capsys, shallow):
    accelerate = str(ROOT / "configs" / "accelerate" / "fsdp2.yaml")
    model = ["--model", shallow, "--lora_rank", "0", "--beta", "0", "--learning_rate", "1e-6"]
    arguments = [*GPU, *model, "--model_init_kwargs", "null", "--card", "RTX 4090", "--max_steps", "100"]
    one, alone = as_json(capsys, *arguments)
    eight, together = as_json(capsys, *arguments, "--accelerate", accelerate)
    assert (one, eight) == (1, 0)
    assert (together["placement"]["count"], together["placement"]["sharding"]) == (8, "fsdp2")
    assert together["schedule"]["completions"] == 8 * alone["schedule"]["completions"]
    assert any("FSDP2 over 8 devices" in change["change"] for change in alone["changes"])


T4 = ["--card", "T4", "--use_cpu", "false"]
HALVES = ["--lora_rank", "8", "--model_init_kwargs", "{dtype: bfloat16}"]


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        (["--steps_per_generation", "1", "--num_iterations", "1"], "clip-higher is inert"),
        (["--max_completion_length", "1000"], "but the model's context holds 1024"),
        (["--overlong_shape", "soft", "--overlong_max_length", "120"], "before the overlong penalty reaches its end"),
        (["--completion_tokens", "90"], "many will be cut off"),
        (["--warmup_steps", "200"], "the warm-up of 200 steps is as long as the run of 160"),
        (["--save_strategy", "steps", "--save_steps", "500"], "save_steps is 500, the run has 160"),
        (["--pass_rate", "0"], "no group is ever informative"),
        (["--pass_rate", "0.01"], "groups are generated for each that is trained on"),
        (["--num_generations", "32", "--per_device_train_batch_size", "16"], "less than a group of 32"),
        (
            ["--env", "math/Problem-v0", "--env_kwargs", "{rows: [{prompt: '1+1', answer: '2'}]}"],
            "the data have 1 prompts",
        ),
        ([*T4, "--bf16", "true"], "does not compute in bfloat16. Set bf16 to false and fp16 to true."),
        (
            [*T4, "--bf16", "true", *HALVES],
            "Set bf16 to false and fp16 to true and dtype in model_init_kwargs to float16.",
        ),
        ([*T4, "--fp16", "true", *HALVES], "does not compute in bfloat16. Set dtype in model_init_kwargs to float16."),
        (["--lora_dropout", "0.1", "--lora_alpha", "8"], "lora_alpha, lora_dropout: no effect"),
        (
            [
                *("--card", "H100", "--use_cpu", "false", "--use_vllm", "true"),
                *("--vllm_mode", "colocate", "--vllm_gpu_memory_utilization", "0.01"),
            ],
            "vLLM's share of 1% is too small",
        ),
        (
            [
                *("--card", "H100", "--use_cpu", "false", "--use_vllm", "true", "--max_completion_length", "4096"),
                *("--mismatch_correction", "sequence_mask"),
            ],
            "tokens keep 59% of their gradient. Set it to token_truncate",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_warnings(capsys, without_remedies, flags, warning):
    if "math/Problem-v0" in flags:
        flags = [*flags, "--eval_env_kwargs", "{}"]
    _, found = as_json(capsys, "--config", QUICKSTART, *flags)
    assert any(warning in sentence for sentence in found["warnings"]), found["warnings"]


def test_the_quick_start_has_nothing_to_warn_of_but_its_checkpoints(capsys):
    _, found = as_json(capsys, "--config", QUICKSTART)
    assert [warning.split(" (")[0] for warning in found["warnings"]] == ["no checkpoint is written"]


def test_the_learning_rate_of_full_training_for_an_adapter(capsys, shallow, without_remedies):
    arguments = [*GPU, "--model", shallow, "--card", "H100"]
    _, found = as_json(capsys, *arguments, "--learning_rate", "1e-6")
    assert any("too small to move an adapter" in sentence for sentence in found["warnings"])
    _, found = as_json(capsys, *arguments, "--lora_rank", "0", "--learning_rate", "1e-6")
    assert any("rounded away" in sentence for sentence in found["warnings"])


def test_rows_longer_than_the_context_do_not_fit(capsys):
    """One change makes them fit, and no other is offered."""
    code, found = as_json(capsys, "--config", QUICKSTART, "--max_completion_length", "5000")
    (change,) = found["changes"]
    assert code == 1 and change["fits"] and change["flags"] == "--max_completion_length 994"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--card", "RTX 4099", "--use_cpu", "false"], "Did you mean RTX 4090?"),
        (["--card", "RTX 4090"], "use_cpu is true"),
        (["--model", "Nobody/nothing-here"], "Give a local folder or a config.json"),
        (["--model", "missing/config.json"], "there is no such file"),
        (["--pass_rate", "2"], "pass_rate is 2"),
        (["--pass_rate", "{a: "], "--pass_rate '{a: ' cannot be read"),
        (["--devices", "0"], "devices is 0: it must be above 0"),
        (["--devices", "two"], "invalid int value: 'two'"),
        (["--completion_tokens", "-1"], "completion_tokens is -1"),
        (["--rows", "0"], "rows is 0"),
        (["--devices", "3", "--num_generations", "5"], "is not a multiple of num_generations 5"),
        (["--accelerate", "missing.yaml"], "missing.yaml cannot be read"),
        (["--calibration", "nowhere"], "there is no metrics.jsonl"),
        (["--calibrate", "runs/x", "--card", "RTX 4090"], "leave --card out"),
        (["--calibrate", "configs"], "calibrate is configs: it exists already"),
        (["--max_steps", "-1"], "set max_steps"),
        (["--completion_tokens", "9999"], "no completion is longer than max_completion_length 96"),
        (["--learnin_rate", "1"], "Did you mean learning_rate?"),
        (["--crad", "T4"], "--crad: there is no setting named 'crad'. Did you mean card?"),
        (["--model", "models/arithmetic"], "there is no such folder"),
        (["--env", "math/Aritmetic-v0"], "Did you mean math/Arithmetic-v0"),
        (["--env", "math/Problem-v0", "--env_kwargs", "{path: missing.jsonl}"], "missing.jsonl"),
        (["--lora_rank", "-1"], "lora_rank is -1"),
        (["--quantization", "4bit"], "lora_rank is 0"),
        (["--quantization", "8bit", "--lora_rank", "8"], "quantization is '8bit'"),
        (["--lora_rank", "8", "--lora_targets", "[no_such_layer]"], "the adapter does not fit the model"),
        (["--model_init_kwargs", "{dtype: float7}"], "dtype 'float7'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, flags, message):
    assert main(["plan", "--config", QUICKSTART, *flags]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err and captured.err.count("\n") == 1
    assert not captured.out


def test_data_out_of_reach_are_no_mistake(capsys):
    flags = ["--env", "math/Problem-v0", "--env_kwargs", "{dataset: nobody/nothing-here}", "--rows", "5000"]
    code, found = as_json(capsys, "--config", QUICKSTART, *flags, "--eval_env_kwargs", "{}", "--max_steps", "-1")
    assert found["schedule"]["steps"] == 3 * 625 * 8 and code in (0, 1)


def commands_of_the_hardware_files() -> dict[str, list[str]]:
    """What follows "What it takes: dapo-trl" at the top of each file, but that of the CPU."""
    found = {}
    for path in sorted(path for path in (CONFIGS / "hardware").iterdir() if path.stem != "cpu"):
        lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
        _, _, command = " ".join(line.strip("# \\") for line in lines).partition("What it takes: dapo-trl ")
        found[path.stem] = shlex.split(command)
    return found


IN_FULL = ["lora-8gb", "qlora-24gb", "full-80gb", "8x80gb-vllm"]
"""One file of each way to train; the others' commands are run with the shape of four layers, and the table of the
documentation shows what they need."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), (found := commands_of_the_hardware_files()).items(), ids=found)
def test_the_commands_of_the_hardware_files_need_no_network(capsys, monkeypatch, tmp_path, shallow, name, command):
    if name not in IN_FULL:
        command = [shallow if word.startswith("configs/models/") else word for word in command]
        assert shallow in command
    for name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setattr(datasets.config, name, name == "HF_DATASETS_OFFLINE" or tmp_path)
    code, text = plan(capsys, *command[1:])
    assert (command[0], code) == ("plan", 0) and "It fits" in text
    assert "optimizer steps are not known" in text and "--rows" in text and "of the run:" not in text
    assert "on average" not in text and "prompts are taken to be 512 tokens" in text


def test_nothing_is_loaded_and_no_gpu_is_asked_for(capsys, monkeypatch, tmp_path):
    """Not one weight: the model's folder holds its shape alone. CUDA is never started."""

    def started():
        raise AssertionError("CUDA is started")

    monkeypatch.setattr(torch.cuda, "_lazy_init", started)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED_MODEL / name, tmp_path)
    code, text = plan(capsys, "--config", QUICKSTART, "--model", str(tmp_path))
    assert code == 0, text


@pytest.mark.slow
def test_a_run_calibrates_the_plan_of_the_next(warm_start, capsys, tmp_path):
    run = str(tmp_path / "run")
    short = ["--max_steps", "16", "--eval_problems", "0", "--logging_steps", "8"]
    done = warm_start.run("dapo_trl", "train", "--config", QUICKSTART, "--output_dir", run, *short)
    assert done.returncode == 0, done.stderr
    code, found = as_json(capsys, "--config", QUICKSTART, *short, "--calibration", run)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    real = sum(row["step_time"] for row in rows if "step_time" in row) / 2
    assert code == 0 and found["schedule"]["seconds_per_step"] == pytest.approx(real, rel=0.5)
    assert 20 < found["schedule"]["trained_tokens"] / 64 < 96
    _, found = as_json(capsys, "--config", QUICKSTART, *T4, *short, "--calibration", run)
    assert found["schedule"]["seconds_per_step"] is None
    assert any("nothing of that run is used" in sentence for sentence in found["warnings"])


@pytest.mark.usefixtures("without_remedies")
def test_a_minute_here_calibrates_the_plan(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(calibration, "SECONDS", 0)
    folder = tmp_path / "speed"
    entry = "{id: math/Arithmetic-v0, group_filter: all_zero}"  # nothing is filtered in that minute
    flags = ["--config", QUICKSTART, "--max_completion_length", "32", "--overlong_shape", "none", "--env", f"[{entry}]"]
    code, found = as_json(capsys, *flags, "--calibrate", str(folder))
    measured = found["schedule"]["seconds_per_step"]
    assert code == 0 and measured > 0 and 0 < found["schedule"]["trained_tokens"] / 64 <= 32
    assert {path.name for path in folder.iterdir()} == {"metrics.jsonl", "config.yaml"}
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 8  # one rollout batch, however fast
    _, again = as_json(capsys, *flags, "--calibration", str(folder))
    assert again["schedule"]["seconds_per_step"] == measured
