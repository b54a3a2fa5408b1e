"""Say what would run and why, with estimated minutes, memory and disk, before anything runs."""

import argparse
import json
from typing import Any

from modelyard.cli.options import add_json, add_project

MEGA = 1_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    add_project(parser)
    add_json(parser, "one JSON object")


def main(options: argparse.Namespace) -> int:
    """Print the plan."""
    from modelyard.core.project_file import read_project

    project = read_project(options.project, options.set)
    rows = plan_rows(project)
    learner = _learner(project, rows)
    if options.json:
        told = {"learner": learner} if learner else {}
        print(json.dumps({"name": project.name, "stages": rows, **told}, ensure_ascii=False))
        return 0
    print(f"{'stage':<9} {'will':<6} {'minutes':>8} {'memory':>9} {'disk':>8}  why")
    for row in rows:
        print(_line(row))
    ahead = [row for row in rows if not row["stands"]]
    if ahead:
        minutes = sum(row["minutes"] for row in ahead)
        memory = max(row["memory_mb"] for row in ahead)
        disk = sum(row["disk_mb"] for row in ahead)
        print(f"together, at most: {minutes:.1f} minutes, {memory:,} MB memory, {disk:,} MB disk")
    else:
        print("nothing to run: everything stands")
    if learner:
        print(f"learner, as it looks: {learner['learner']}, because {learner['why']}")
    return 0


def _learner(project: Any, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Which of network and trees it would take, from a trial on a few rows."""
    from modelyard.doors import foreseen

    stands = {row["stage"]: row["stands"] for row in rows}
    return None if stands["train"] else foreseen(project)


def plan_rows(project: Any) -> list[dict[str, Any]]:
    """One row for each stage: whether it stands, why, and what it is thought to need."""
    from modelyard.doors import facts_of, plan_of

    steps = plan_of(project)
    known = facts_of(project) if any(step.manifest is None for step in steps) else None
    rows = []
    for step in steps:
        row: dict[str, Any] = {
            "stage": step.stage.name,
            "stands": step.manifest is not None,
            "why": step.why,
        }
        if step.manifest is None and known is not None:
            need = step.stage.estimate(project, known)
            row["minutes"] = round(need.seconds / 60, 2)
            row["memory_mb"] = round(need.memory_bytes / MEGA)
            row["disk_mb"] = round(need.disk_bytes / MEGA)
        rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    if row["stands"]:
        return f"{row['stage']:<9} {'reuse':<6} {'-':>8} {'-':>9} {'-':>8}  {row['why']}"
    needs = f"{row['minutes']:>8.1f} {row['memory_mb']:>6,} MB {row['disk_mb']:>5,} MB"
    return f"{row['stage']:<9} {'run':<6} {needs}  {row['why']}"
