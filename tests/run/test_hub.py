"""``push_to_hub`` without a Hub: what is uploaded, and that a Hub which fails costs the run nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from dapo_trl.cli.main import main
from dapo_trl.monitor.status import seen

from ..cli.test_main import config_file

PUSH = {"push_to_hub": True, "hub_model_id": "me/sums", "hub_token": "hf_secret", "eval_problems": 2, "eval_samples": 1}


@pytest.fixture
def pushed(monkeypatch) -> list[dict]:
    """The uploads that the Hub was asked for; its repositories are there already."""
    uploads: list[dict] = []
    repository = SimpleNamespace(repo_id="me/sums")
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, *_, **__: repository)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda self, **asked: uploads.append(asked))
    return uploads


def trained(tmp_path: Path, capsys) -> tuple[int, str]:
    settings = {**PUSH, "max_steps": 1, "max_completion_length": 8, "max_refill_rounds": 0}
    code = main(["train", "--config", config_file(tmp_path, **settings)])
    return code, "".join(capsys.readouterr())


def test_the_model_is_pushed_with_its_card_and_nothing_else(pushed, tmp_path, capsys):
    code, output = trained(tmp_path, capsys)
    assert code == 0 and "published: https://huggingface.co/me/sums" in output
    (upload,) = pushed
    folder = Path(upload["folder_path"])
    assert upload["repo_id"] == "me/sums" and folder == tmp_path / "run" / "model"
    assert "held-out accuracy" in (folder / "README.md").read_text() and (folder / "model.safetensors").is_file()
    assert "training_args.bin" in upload["ignore_patterns"], "it holds the token"
    assert not (tmp_path / "run" / "model.safetensors").exists()
    texts = [
        path.read_text(errors="replace")
        for path in (tmp_path / "run").rglob("*")
        if path.suffix in (".md", ".yaml", ".json")
    ]
    assert len(texts) > 5 and not any("hf_secret" in text for text in texts)


def test_a_hub_that_fails_costs_one_line(pushed, tmp_path, capsys, monkeypatch):
    def refuse(self, **asked):
        raise ConnectionError("the network\nis down")

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", refuse)
    code, output = trained(tmp_path, capsys)
    run = tmp_path / "run"
    assert code == 1 and seen(run, newest=None) == ("finished", "")
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert line == (
        f"error: the model was not pushed to the Hub (the network is down). It is complete in {run / 'model'}: "
        f"hf upload me/sums {run / 'model'}"
    )
    assert (run / "model" / "README.md").is_file() and (run / "evaluation_after.json").is_file()
    assert (run / "report.html").is_file() and "Traceback" not in output
