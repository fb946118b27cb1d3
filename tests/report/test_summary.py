"""From logs and rollouts to what the page holds: thinned out truly, chosen fairly."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from dapo_trl.report import page, rollouts, summary
from dapo_trl.report.reading import Run, read_run

from ..support.run_folder import make_run, rollout, row, usual_run


def test_many_logs_become_few_points_with_their_range():
    rows = [{"step": float(step), "kl": float(step % 10), "ledger/tokens": 5.0 * step} for step in range(1, 10_001)]
    found = summary.curves(rows, most=100)
    assert len(found["step"]) == 100 and found["step"][-1] == 10_000
    assert found["values"]["kl"] == [4.5] * 100 and set(found["low"]["kl"]) == {0} and set(found["high"]["kl"]) == {9}
    assert found["values"]["ledger/tokens"][-1] == 50_000  # what counts up is not averaged
    assert "ledger/tokens" not in found["low"]


def test_few_logs_stay_as_they_are():
    rows = [{"step": 1.0, "kl": 0.123456789}, {"step": 2.0, "entropy": 2.0}]
    found = summary.curves(rows)
    assert found == {"step": [1, 2], "values": {"kl": [0.12346, None], "entropy": [None, 2]}, "low": {}, "high": {}}
    assert summary.curves([])["step"] == []


def test_held_out_accuracy_comes_from_logs_and_files(tmp_path):
    measured = {"before": {"accuracy": 0.1, "interval_95": [0.05, 0.2]}, "after": {"accuracy": 0.9}, "torn": {}}
    rows = [row(5, 10), {"step": 5.0, "eval_accuracy": 0.4, "eval_accuracy_low": 0.3, "eval_accuracy_high": 0.5}]
    points = summary.held_out_points(Run(Path(), rows=[*rows, {"step": 8.0}], evaluations=measured))
    assert [(point["step"], point["value"], point["low"]) for point in points] == [
        (0, 0.1, 0.05),
        (5, 0.4, 0.3),
        (8, 0.9, None),
    ]


def test_the_environments_of_a_mixture_stand_side_by_side(tmp_path):
    rows = [
        {
            **row(step, 10),
            **{f"env/{name}/accuracy/sampled": 0.1 * step + place for place, name in enumerate(("sums", "words"))},
            **{
                f"env/{name}/sampling/groups_trained": float(3 * step - place)
                for place, name in enumerate(("sums", "words"))
            },
            "env/sums/ledger/tokens": 100.0 * step,
            "env/sums/ledger/trained_tokens": 25.0 * step,
        }
        for step in (1, 2)
    ]
    rows.append({"step": 2.0, "env/words/eval_accuracy": 0.7})
    measured = {"before": {"by_level": {"sums": 0.2}}, "after": {"by_level": {"sums": 0.6}}}
    sums, words = summary.environments(Run(Path(), rows=rows, evaluations=measured))
    assert sums == {
        "name": "sums",
        "trained": 6.0,
        "share": 6 / 11,
        "tokens": 200.0,
        "trained_tokens": 0.25,
        "accuracy": (pytest.approx(0.1), pytest.approx(0.2)),
        "held_out": (0.2, 0.6),
    }
    assert words["held_out"] == (0.7, 0.7) and words["tokens"] is words["trained_tokens"] is None
    assert summary.environments(Run(Path(), rows=[row(1, 10)])) == []
    assert summary.curves(rows[:2], most=1)["values"]["env/sums/ledger/tokens"] == [200], "running totals count up"
    described = {"environments": {"sums": {"train": {"id": "a", "spec": None}}, "words": {"train": {"id": "b"}}}}
    names = [line["name"] for line in summary.environment_table([Run(Path(), environment=described)])]
    assert "sums: train.id" in names and "words: train.id" in names


def test_settings_are_compared_as_they_were_in_force():
    asked = [{"a": 1, "b": {"c": [1], "d": 2}}, {"a": 1, "b": {"c": [2]}, "beta": 0.01, "scale": "group"}]
    first, second = (Run(Path(), config=config) for config in asked)
    first.settings = {**asked[0], "beta": 0.01, "scale": "none", "never asked for": 3}
    assert summary.settings_table([first, second]) == [
        {"name": "b.c", "values": ["[1]", "[2]"], "differs": True, "asked": [True, True]},
        {"name": "b.d", "values": ["2", None], "differs": True, "asked": [True, False]},
        {"name": "scale", "values": ["none", "group"], "differs": True, "asked": [False, True]},
        {"name": "a", "values": ["1", "1"], "differs": False, "asked": [True, True]},
        {"name": "beta", "values": ["0.01", "0.01"], "differs": False, "asked": [False, True]},
    ]


def test_a_run_that_learnt_nothing_says_why():
    wrong = {"loss": 0.0, "accuracy/sampled": 0.0, "groups/sampled": 8.0, "groups/kept": 0.0, "groups/all_wrong": 8.0}
    run = Run(Path(), rows=[{"step": float(step), **wrong} for step in range(1, 9)], status="finished")
    assert "almost every group is all wrong" in summary.describe_run(run, "a")["diagnosis"]
    for run.status in ("running", "interrupted", "stopped", "failed", "killed", "silent"):
        assert summary.describe_run(run, "a")["diagnosis"] is None, "no word on a run that did not come to its end"
    rows = [{"step": float(step), "loss": 0.0, "accuracy/sampled": 0.0} for step in range(9)]
    run = Run(Path(), rows=rows, status="finished")
    assert summary.describe_run(run, "a")["diagnosis"] is None  # as plain TRL may have logged it


def test_labels_are_as_short_as_they_can_be():
    assert summary.labels([Path("/x/runs/a"), Path("/x/runs/b")]) == ["a", "b"]
    assert summary.labels([Path("/x/one/a"), Path("/x/two/a")]) == ["one/a", "two/a"]
    assert len(summary.labels([Path("/x/a"), Path("/x/a")])) == 2


def entries(count: int) -> list[rollouts.Entry]:
    rng = np.random.default_rng(0)
    return [rollouts.Entry(Path(), 0, 1000, i // 5, float(a)) for i, a in enumerate(rng.normal(size=count))]


def test_what_fits_is_chosen_evenly_and_by_advantage():
    found = rollouts.select(entries(50_000), most=2000)
    assert len(found) == 2000
    steps = np.histogram([entry.step for entry in found], bins=10)[0]
    assert steps.min() >= 190 and steps.max() <= 210
    sizes = np.abs([entry.advantage for entry in found])
    assert np.median(sizes) > 1.0 and sizes.min() < 0.1  # the median of all is 0.67
    assert len(rollouts.select(entries(100), most=2000)) == 100
    assert len(rollouts.select(entries(1000), most=2000, size=100_000)) == 100
    assert rollouts.select([]) == []


def test_the_index_takes_any_line(tmp_path):
    lines = [
        json.dumps(rollout(3)),
        "{torn",
        "[]",
        json.dumps({"step": "x", "advantage": None}),
        json.dumps({"completion": "as an older version wrote it", "level": {"a": 1}, "rewards": [1], "pieces": 5}),
        '{"prompt": "\\ud800 alone"}',
    ]
    notes: list[str] = []
    make_run(tmp_path, **{"rollouts-0.jsonl": "\n".join(lines) + '\n{"step": 1, "pie'})
    found = rollouts.index(tmp_path, notes)
    assert len(found) == 4 and "3 line(s) of the recorded rollouts cannot be read" in notes[0]
    loaded = [rollouts.load(entry) for entry in found]
    assert [one["step"] for one in loaded] == [0, 0, 0, 3]
    assert loaded[1]["pieces"] == ["as an older version wrote it"]
    assert loaded[3]["change"] == [0.0, 0.01, 0.02, 0.03, 0.04, 0.05]
    rollouts.index(tmp_path / "missing", notes)
    assert "No rollouts were recorded" in notes[1]


def test_turns_begin_where_their_tokens_are_shown(tmp_path):
    """Tokens 3 to 12 of an episode were not recorded, and with them the beginning of its second turn."""
    turns = [{"start": start, "reward": 0.5, "advantage": -0.25} for start in (0, 5, 14)]
    make_run(tmp_path, rollouts=[rollout(turns=turns, left_out=[3, 10]), rollout(turns=[1, {"start": "x"}]), rollout()])
    loaded = [rollouts.load(entry) for entry in rollouts.index(tmp_path, [])]
    assert loaded[0]["turns"] == [{"place": place, "reward": 0.5, "advantage": -0.25} for place in (0, 3, 4)]
    assert not any("turns" in one for one in loaded[1:])


def test_a_million_characters_are_cut_and_counted(tmp_path):
    long = rollout(pieces=["ab"] * 500_000, prompt="x" * 10**6, tokens=500_000)
    make_run(tmp_path, rollouts=[long, rollout(pieces=["y" * 10**6])])
    [first, second] = [rollouts.load(entry) for entry in rollouts.index(tmp_path, [])]
    assert first["missing"] == 10**6 - 30_000 and len(first["pieces"]) == len(first["change"]) == 15_000
    assert len(first["prompt"]) < 31_000 and "970,000 more characters" in first["prompt"]
    assert second["missing"] == 10**6 - 30_000


def lines_of(html: str) -> list:
    """What the page's script reads, as it reads it."""
    [content] = re.findall(r'<script type="application/octet-stream" id="data">(.*?)</script>', html)
    return [json.loads(line) for line in gzip.decompress(base64.b64decode(content)).decode().split("\n")]


HOSTILE = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>{{ 7 * 7 }}"


def test_nothing_in_the_data_is_markup(tmp_path):
    folder = tmp_path / HOSTILE.replace("/", "∕")[:60]
    make_run(folder, [row(1, 1, **{HOSTILE: 1.0})], [rollout(prompt=HOSTILE, pieces=[HOSTILE], verdict=HOSTILE)])
    html = page.render(page.data([read_run(folder)], [HOSTILE]), title=HOSTILE)
    [title] = re.findall("<title>(.*?)</title>", html)
    assert "<" not in title and "{{ 7 * 7 }}" in title
    assert "window.pwned" not in html.replace(title, "") and "<img" not in html
    [content, index, body] = lines_of(html)
    assert HOSTILE in content["runs"][0]["curves"]["values"] and index[0][3] == HOSTILE[:100]
    assert body["prompt"] == HOSTILE and body["pieces"] == [HOSTILE]
    assert html.count("</script>") == len(page.SCRIPTS) + 1


def test_the_page_needs_nothing_else(tmp_path):
    html = page.write_report([usual_run(tmp_path / "a"), usual_run(tmp_path / "b")], tmp_path / "x" / "two.html")
    text = html.read_text()
    assert "http://" not in text.replace("http://www.w3.org", "") and "src=" not in text
    assert "connect-src &#39;none&#39;" in text
    assert {path.name for path in html.parent.iterdir()} == {"two.html", "two-1-curves.png", "two-2-curves.png"}
    [content, index, *bodies] = lines_of(text)
    assert len(content["runs"]) == 2 and len(index) == len(bodies) == 62
    assert content["runs"][0]["rollouts"] == {"recorded": 31, "shown": 31}


@pytest.mark.parametrize("rows", [[], [row(1, 1)], [row(step, 5) for step in range(5)]])
def test_what_was_asked_and_what_is_missing(rows, tmp_path):
    described = summary.describe_run(read_run(make_run(tmp_path, rows)), "a")
    assert described["max_steps"] == 100 and described["logs"] == len(rows)
    assert json.loads(json.dumps(described, allow_nan=False)) == described
