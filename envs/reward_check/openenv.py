"""A report in the form and with the check ids of OpenEnv's RFC 008, environment auto-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .check import Report

CHECK_IDS: Mapping[str, Sequence[str]] = {
    "interface": ("runtime.observation_schema", "runtime.reward_well_formed"),
    "rows": ("runtime.seed_control", "runtime.episode_determinism"),
    "time": ("runtime.resource_bounds",),
    "solution": ("semantic.oracle_max",),
    "worthless": ("semantic.floor_gap",),
    "hedging": ("statistical.adversarial_floor",),
    "persuasion": ("statistical.adversarial_floor",),
    "near-misses": ("statistical.adversarial_floor",),
    "other-rows": ("statistical.adversarial_floor",),
    "copying": ("statistical.gameability_gap",),
    "leak": ("semantic.no_solution_leakage",),
    "execution": ("runtime.host_containment",),
    "repeatable": ("semantic.verifier_determinism", "runtime.episode_isolation"),
    "contract": ("runtime.reward_attribution",),
    "spec": ("semantic.replayability",),
}
"""Ids of the RFC that a check answers; a check without one is reported as `dapo_trl.<its name>`."""
_STATUS = {"ok": "pass", "failed": "fail", "advice": "fail", "not checked": "skip"}


def openenv_report(report: Report) -> dict[str, Any]:
    """Return a report as data for JSON.

    Returns:
        "target", "verdict" ("fail"; "warn" with advice or with checks that were not made, as the RFC has no verdict of
        its own for these; else "pass"), "not_checked" (a count) and "results": for each check and each
        of its ids "check_id", "name" (ours), "status" ("pass", "fail" or "skip"), "severity" ("fail" or "warn") and
        "evidence" (a list of messages).
    """
    results = [
        {
            "check_id": check_id,
            "name": check.name,
            "status": _STATUS[check.status],
            "severity": "warn" if check.status == "advice" and not report.strict else "fail",
            "evidence": [check.message] if check.message else [],
        }
        for check in report.checks
        for check_id in CHECK_IDS.get(check.name, (f"dapo_trl.{check.name}",))
    ]
    return {
        "report_schema_version": "1",
        "lane": "local",
        "target": report.env,
        "verdict": "fail"
        if report.failures
        else "pass"
        if all(check.status == "ok" for check in report.checks)
        else "warn",
        "not_checked": len(report.not_made),
        "results": results,
    }
