"""The README and pages of docs/ from top to bottom, each in one folder: every command and program as it stands there.

A training that says how short it is (`--max_steps`) is run as typed; others are cut short by more flags. A command that
trains a model of the Hub is planned instead, with the model's shape and the card that its hardware file is for: the
settings are read, and the run must fit. Of a command that measures such a model the settings are read.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dapo_trl.evaluation.settings import load_eval_settings
from dapo_trl.run.settings import OWNERS

from .conftest import ROOT
from .support.warm_start import WarmStart

BIN = Path(sys.executable).parent
SHORT = "--max_steps 2 --eval_problems 4 --eval_samples 2 --save_strategy no"
MAKE = {"quickstart": SHORT, "test": "tests/monitor/test_console.py -n 0"}
README, TRAINING = ROOT / "README.md", ROOT / "docs" / "training.md"
PAGES = [
    README,
    TRAINING,
    *(ROOT / f"docs/{name}.md" for name in ("environments", "evaluation", "extending", "math-verdicts")),
]
ELSEWHERE = {
    "docs/generation.md": "tests/generation/test_vllm.py has a stand-in: its commands need vLLM",
    "docs/hardware.md": "tests/test_hardware_docs.py reads its commands: they need GPUs",
    "docs/interop.md": "tests/envs/interop runs them: they need openenv-core, verifiers and textarena",
    "docs/judges.md": "tests/envs/judges: they need a server with a model",
    "docs/real.md": "tests/test_real.py: a pretrained model, and GPUs",
    "docs/triage.md": "tests/triage/test_command.py has such commands: these take a model of the Hub",
    "docs/results.md": "tests/test_results.py: its commands take an hour",
}
FRAGMENTS = {
    "task = TRLTask(": "it needs a model that calls tools: tests/rollout/test_trl_tools.py",
    ", 0.1 * closer": "a method of the environment above it: tests/test_turn_credit.py",
}
"""Programs that a person completes, by a line of theirs, with the place of their test."""


def steps(page: Path) -> list[tuple[str, str]]:
    """Commands and programs in their order, each with its language."""
    found = []
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for language, text in blocks:
        lines = [text] if language == "python" else text.replace("\\\n", " ").splitlines()
        found += [(language, line) for line in lines]
    return found


def made_short(words: list[str]) -> list[str]:
    """A command with the flags that make it cheap."""
    hub = next((word for word in words if word.startswith("Qwen/")), None)
    if "train" in words and "--max_steps" in words:
        return words
    if hub is not None:
        shape = f"configs/models/{hub.split('/')[1].lower().removesuffix('-instruct')}.json"
        card = ["--card", "RTX 4090"]
        return [{"train": "plan", hub: shape}.get(word, word) for word in words] + card
    if "train" in words:
        return words + shlex.split(SHORT)
    if "eval" in words and "--compare" not in words:
        return [*words, "--problems", "4", "--k", "2"]
    return words


class Person:
    """Somebody in a checkout who has nothing but the page."""

    def __init__(self, folder: Path, warm_start: WarmStart):
        self.folder, self.warm_start = folder, warm_start
        for name in (
            "configs",
            "models",
            "templates",
            "Makefile",
            "pyproject.toml",
            "constraints.txt",
            "tests",
            "dapo_trl",
            "envs",
        ):
            (folder / name).symlink_to(ROOT / name)

    def does(self, language: str, text: str) -> tuple[int, str]:
        if language == "python":
            named = re.match(r"# (\w+\.py)\n", text)
            file = self.folder / (named[1] if named else "program.py")
            file.write_text(text, encoding="utf-8")
            return (0, "") if named else self.python(str(file))
        words = shlex.split(text, comments=True)
        if "eval" in words and {"Qwen/Qwen2.5-1.5B", "runs/mine/model"} & set(words):
            first = words.index("eval") + 1
            return self.reads_evaluation(words[first:])
        if words[0] in ("git", "cd") or words == ["make", "real"]:  # this is a checkout; tests/test_real.py
            return 0, ""
        if words[0] == "make":
            if not (BIN.parent / ".installed").exists():
                pytest.skip("not running in the environment that the Makefile makes")
            rest = [f"VENV={BIN.parent}", f"ARGS={MAKE[words[1]]}", "-o", str(BIN.parent / ".installed")]
            return self.shell(shlex.join(words + rest))
        if words[0] == "dapo-trl":
            return self.python("dapo_trl", *made_short(words[1:]))
        return self.shell(text if words[0] == "echo" else shlex.join(made_short(words)))

    def reads_evaluation(self, words: list[str]) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--config", nargs="+", default=[])
        given, flags = parser.parse_known_args(words)
        files = [ROOT / file for file in given.config]
        return 0, str(load_eval_settings(files, flags, training=OWNERS).environments())

    def python(self, program: str, *arguments: str) -> tuple[int, str]:
        done = self.warm_start.run(program, *arguments, cwd=self.folder, timeout=500)
        return done.returncode, done.stdout + done.stderr

    def shell(self, line: str) -> tuple[int, str]:
        env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            timeout=500,
        )
        return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_everything_on_the_page_works(page, warm_start, tmp_path):
    todo = [(kind, text) for kind, text in steps(page) if not any(line in text for line in FRAGMENTS)]
    printed = {}
    person = Person(tmp_path, warm_start)
    for language, text in todo:
        code, printed[text] = person.does(language, text)
        assert code == 0, f"{text}\n{printed[text][-3000:]}"
    if page == README:
        (quickstart,) = (output for text, output in printed.items() if text.startswith("make quickstart"))
        assert_same_lines(quickstart)
        (generated,) = (output for text, output in printed.items() if "pipeline(" in text)
        assert re.search(r"^Answer: \d+$", generated, re.MULTILINE), "the model of the quick start has an answer"


def test_no_page_is_left_out():
    """Each page with a command or a program is tried, here or elsewhere."""
    pages = {page for page in [README, *(ROOT / "docs").glob("*.md")] if steps(page)}
    assert pages == {*PAGES, *(ROOT / name for name in ELSEWHERE)}
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(text.count(line) == 1 for line in FRAGMENTS)


def test_what_a_reader_tries_is_short():
    """Except for the two that the page says take a minute, a training in the README or docs says how short it is."""
    lines = [
        text
        for page in PAGES
        for kind, text in steps(page)
        if kind == "bash" and "dapo_trl train" in text.replace("-", "_")
    ]
    long = [
        line for line in lines if "Qwen/" not in line and "quickstart.yaml" not in line and "--max_steps" not in line
    ]
    assert len(lines) >= 6 and long == []


def assert_same_lines(output: str) -> None:
    """What the page on training shows of the quick start is what it prints, but for the numbers."""
    (shown,) = re.findall(r"```text\n(models/.*?)```", TRAINING.read_text(encoding="utf-8"), re.DOTALL)

    def masked(text: str) -> set[str]:
        lines = (line for line in text.splitlines() if not re.match(r"\s+(\d|level|\.\.\.)|.*tokens generated", line))
        return {re.sub(r"[-+]?\d[\d.,]*", "#", line).strip() for line in lines}

    assert masked(shown) - masked(output) == set()


def test_the_readme_is_short_and_has_what_a_person_needs():
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 200
    commands = [command for language, command in steps(README) if language == "bash"]
    assert len(commands) >= 12 and sum(language == "python" for language, _ in steps(README)) >= 3
    for word in (
        "git clone",
        "make quickstart",
        "make test",
        "train",
        "plan",
        "show",
        "check",
        "eval",
        "report",
        "merge",
    ):
        assert any(word in command for command in commands), word


def test_the_headline_is_what_was_measured():
    """The figures of the README stand in docs/results.md, which is made from the raw data."""
    text = README.read_text(encoding="utf-8")
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    figures = re.findall(r"\d\.\d+ ± \d\.\d+", text[text.index("**Does it help?**") :].split("\n\n")[0])
    assert len(figures) == 3
    assert all(figure in results for figure in figures)


def test_every_link_leads_somewhere():
    for page in (README, ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), (page.name, target)
