"""Runs the steps of a composite action as a runner of GitHub Actions does, offline.

What a runner does, in short (its documentation: "Workflow syntax", "Metadata syntax", "Workflow commands"): a
script is written to a file and given to ``bash --noprofile --norc -eo pipefail``; ``${{ }}`` is replaced in the
texts of env, with, if and run before; a step runs if its condition holds, which has an implied ``success()``
unless it calls a status function; files named by GITHUB_OUTPUT and GITHUB_STEP_SUMMARY take outputs and
Markdown. Steps with ``uses`` are only recorded.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


@dataclass
class Run:
    """What became of an action."""

    exit_code: int = 0
    steps: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    used: dict[str, dict[str, str]] = field(default_factory=dict)
    summary: str = ""
    log: str = ""


class Runner:
    """A runner with a workspace."""

    def __init__(self, action: Path, workspace: Path, path: Path) -> None:
        self.text = action.read_text("utf-8")
        self.action = yaml.safe_load(self.text)
        self.folder = action.parent
        self.workspace = workspace
        self.path = path
        self.state: dict[str, Any] = {}
        self.failed = False

    def run(self, **inputs: str) -> Run:
        """Run all steps; names of inputs are given with _ in the place of -."""
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        known = self.action["inputs"]
        assert set(given) <= set(known), f"no such input: {set(given) - set(known)}"
        values = {name: given.get(name, str(spec.get("default", ""))) for name, spec in known.items()}
        self.state = {"inputs": values, "github": {"action_path": str(self.folder)}, "steps": {}}
        self.failed = False
        result = Run()
        for number, step in enumerate(self.action["runs"]["steps"]):
            name = step["name"]
            if not self.condition(str(step.get("if", "success()"))):
                result.steps[name] = "skipped"
            elif "uses" in step:
                result.steps[name] = "success"
                result.used[step["uses"]] = {key: self.expand(value) for key, value in step["with"].items()}
            else:
                code = self.script(step, number, result)
                result.steps[name] = "success" if code == 0 else "failure"
                if code and not self.failed:
                    self.failed, result.exit_code = True, code
        result.outputs = {key: self.expand(spec["value"]) for key, spec in self.action["outputs"].items()}
        return result

    def script(self, step: dict[str, Any], number: int, result: Run) -> int:
        """Run the script of a step."""
        assert step["shell"] == "bash"
        temp = self.workspace.parent / "runner_temp"
        temp.mkdir(exist_ok=True)
        files = {name: temp / f"{name}_{number}" for name in ("OUTPUT", "STEP_SUMMARY", "ENV", "PATH")}
        for file in files.values():
            file.write_bytes(b"")
        script = temp / f"{number}.sh"
        script.write_text(self.expand(step["run"]), "utf-8")
        environment = {
            "PATH": f"{self.path}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "HOME": str(temp),
            **{f"GITHUB_{name}": str(file) for name, file in files.items()},
            **{key: self.expand(str(value)) for key, value in step.get("env", {}).items()},
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.workspace / self.expand(step.get("working-directory", ".")),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        result.log += done.stdout + done.stderr
        result.summary += files["STEP_SUMMARY"].read_text("utf-8")
        if "id" in step:
            pairs = (line.split("=", 1) for line in files["OUTPUT"].read_text("utf-8").splitlines())
            self.state["steps"][step["id"]] = {"outputs": dict(pairs)}
        return done.returncode

    def expand(self, text: str) -> str:
        """``text`` with its expressions replaced by their values."""
        return _EXPRESSION.sub(lambda found: str(self.value(found[1])), text)

    def condition(self, text: str) -> bool:
        """Whether a step runs."""
        bare = text.strip().removeprefix("${{").removesuffix("}}")
        implied = "" if re.search(r"\b(always|success|failure|cancelled)\(\)", bare) else "success() && "
        return all(self.term(part) for part in (implied + bare).split("&&"))

    def term(self, text: str) -> bool:
        """One part of a condition: a status function, or a comparison of two values."""
        term = text.strip()
        if term.endswith("()"):
            return {"always()": True, "success()": not self.failed, "failure()": self.failed}[term]
        left, operator, right = re.fullmatch(r"(\S+)\s*(==|!=)\s*(\S+)", term).groups()
        same = self.value(left).lower() == self.value(right).lower()  # strings compare without regard to case
        return same if operator == "==" else not same

    def value(self, text: str) -> str:
        """A literal in quotes, or a name such as ``inputs.data``; what does not exist is empty."""
        name = text.strip()
        if name.startswith("'"):
            return name[1:-1]
        found: Any = self.state
        for part in name.split("."):
            found = found.get(part, {})
        return found if isinstance(found, str) else ""
