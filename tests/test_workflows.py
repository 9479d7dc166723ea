"""The workflows of the repository keep to GitHub's schema, and to what keeps secrets safe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).parents[1] / ".github" / "workflows"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    folder = Path(sys.executable).parent
    return subprocess.run([str(folder / command[0]), *command[1:]], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_keeps_to_the_schema(path: Path):
    checked = run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path))
    assert checked.returncode == 0, checked.stdout


def test_a_wrong_workflow_would_be_seen(tmp_path: Path):
    (tmp_path / "wrong.yml").write_text((WORKFLOWS / "ci.yml").read_text().replace("runs-on:", "runs-at:"))
    checked = run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(tmp_path / "wrong.yml"))
    assert checked.returncode == 1


def test_the_security_linter_finds_nothing():
    checked = run("zizmor", "--offline", str(WORKFLOWS))
    assert checked.returncode == 0, checked.stdout + checked.stderr
