"""The report with the ids of OpenEnv's RFC 008."""

import re

from envs.reward_check.check import Report
from envs.reward_check.checks import CHECKS, Check
from envs.reward_check.openenv import CHECK_IDS, openenv_report

from ...conftest import ROOT


def report(strict=False, **status):
    return Report(
        "my/Task-v0", [Check(name, status.get(name, "ok"), "why" * (name in status)) for name in CHECKS], strict
    )


def test_the_documentation_has_the_same_ids():
    rows = re.findall(r"^\| `([\w-]+)` \| .* \|(.*)\|$", (ROOT / "docs" / "environments.md").read_text(), re.MULTILINE)
    documented = {name: tuple(re.findall(r"`([\w.]+)`", ids)) for name, ids in rows if name in CHECKS}
    assert documented == {name: tuple(CHECK_IDS.get(name, ())) for name in CHECKS}


def test_each_check_has_a_result_for_each_of_its_ids():
    found = openenv_report(report(solution="failed", thinking="advice", spec="not checked"))
    assert (found["target"], found["verdict"], found["not_checked"]) == ("my/Task-v0", "fail", 1)
    results = {result["check_id"]: result for result in found["results"]}
    assert results["semantic.oracle_max"] == {
        "check_id": "semantic.oracle_max",
        "name": "solution",
        "status": "fail",
        "severity": "fail",
        "evidence": ["why"],
    }
    assert results["dapo_trl.thinking"]["severity"] == "warn" and results["semantic.replayability"]["status"] == "skip"
    assert results["runtime.seed_control"]["name"] == results["runtime.episode_determinism"]["name"] == "rows"


def test_verdicts():
    assert openenv_report(report())["verdict"] == "pass"
    assert openenv_report(report(leak="not checked"))["verdict"] == "warn"
    assert openenv_report(report(thinking="advice"))["verdict"] == "warn"
    assert openenv_report(report(thinking="advice", strict=True))["verdict"] == "fail"


def test_the_summary_counts_what_was_not_checked():
    assert report().summary == "my/Task-v0: ok" and report().ok
    assert not report(leak="not checked").ok
    found = report(spec="not checked", leak="not checked").summary
    assert found == "my/Task-v0: no check failed; 2 of 19 checks were not made (leak, spec)"
    found = report(worthless="failed", spec="not checked").summary
    assert found == "my/Task-v0: failed (worthless); 1 of 19 checks were not made (spec)"
