"""The container runs a service as nobody in particular, with a root that cannot be written."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from plait.cli.main import run

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:
    """The instructions of the Dockerfile."""
    return list(DockerfileParser(path=str(ROOT / "Dockerfile")).structure)


@pytest.fixture(scope="module")
def final(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The instructions of the last stage: all that is in the image."""
    last = max(number for number, step in enumerate(steps) if step["instruction"] == "FROM")
    return steps[last:]


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["plait"])


def values(steps: list[dict[str, Any]], instruction: str) -> list[str]:
    return [step["value"] for step in steps if step["instruction"] == instruction]


def test_the_image_runs_as_a_user_without_rights(
    final: list[dict[str, Any]], service: dict[str, Any]
) -> None:
    (user,) = values(final, "USER")
    assert int(user.split(":")[0]) > 0
    assert service["user"] == user
    instructions = [step["instruction"] for step in final]
    assert "RUN" not in instructions[instructions.index("USER") :]


def test_the_image_has_a_check_of_its_health(final: list[dict[str, Any]]) -> None:
    (check,) = values(final, "HEALTHCHECK")
    assert "/ready" in check


def test_base_images_have_versions(steps: list[dict[str, Any]]) -> None:
    for value in values(steps, "FROM"):
        image = value.split()[0]
        assert re.search(r":\$\{PYTHON\}-slim$", image), image
    assert "PYTHON=3.11" in values(steps, "ARG")


def test_files_that_are_copied_exist_and_are_not_ignored(steps: list[dict[str, Any]]) -> None:
    kept = (ROOT / ".dockerignore").read_text().split()
    for value in values(steps, "COPY"):
        *sources, _ = value.split()
        for source in sources:
            if sources[0].startswith("--from"):
                continue
            assert (ROOT / source).exists(), source
            assert f"!{source}" in kept, source


def test_every_extra_that_is_installed_exists(steps: list[dict[str, Any]]) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(r"\.\[([\w,]+)\]", " ".join(values(steps, "RUN")))
    assert extras
    for extra in extras[0].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_nothing_can_be_written_or_gained(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["volumes"] == ["${MODEL:-./runs/first}:/model:ro"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert {"mem_limit", "pids_limit", "cpus"} <= set(service)


def test_the_command_is_one_that_plait_has(
    service: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in service["command"].split():
        assert not word.startswith("--") or word in shown, word


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    found = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert not found.stdout
