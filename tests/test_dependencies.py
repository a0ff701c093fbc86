"""What is imported is declared in pyproject.toml, and what is declared is used."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# The scripts of benchmarks/ and docs/ import each other, and tests what a conftest.py defines.
SCRIPTS = {file.stem for folder in ("benchmarks", "docs") for file in (ROOT / folder).glob("*.py")}
OURS = {"align_bench", "algorithms", "tests", *SCRIPTS}

# Module → distribution, where the two are not spelled alike.
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "axe_playwright_python": "axe-playwright-python",
    "pydantic_core": "pydantic",  # which comes with the one that it needs
}

# Declared, and imported by no line of ours.
WITHOUT_IMPORT = {
    "bitsandbytes": "transformers quantises to NF4 with it",
    "tokenizers": "its version is in the keys of tokenised tables",
    "trl": "algorithms/_trl.py imports its trainers by name, and says what is missing",
}
TRACKERS = ("mlflow", "tensorboard", "trackio", "wandb")  # extras, of which tests use those that are installed
DEV_WITHOUT_IMPORT = {
    "import-linter": "lint-imports, in tox.ini",
    "mypy": "a command of tests/test_typed_plugins.py",
    "pre-commit": ".pre-commit-config.yaml",
    "pytest-benchmark": "the fixture `benchmark` of benchmarks/test_micro.py",
    "pytest-xdist": "tests run on every core, in tox.ini",
    "ruff": "in tox.ini",
    "tox": "tox.ini",
    "types-pyyaml": "mypy's stubs of yaml",
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    names = [re.match(r"[\w.-]+", requirement) for requirement in requirements]
    assert all(names)
    return {normal(name[0]) for name in names if name}


def imported(*folders: str) -> set[str]:
    """Distributions that the files of these folders import, anywhere in them."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    modules: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.add(node.module)
    tops = {module.partition(".")[0] for module in modules} - OURS - sys.stdlib_module_names
    return {normal(DISTRIBUTIONS.get(top, top)) for top in tops}


def test_all_that_the_package_and_its_plugins_import_is_declared_and_nothing_else(project: dict[str, Any]) -> None:
    found = imported("align_bench", "algorithms")
    assert len(found) > 20  # the search finds something
    assert not found & WITHOUT_IMPORT.keys(), "an exception that is none"
    extras = project["optional-dependencies"]
    by_accelerate = {"tensorboard"}  # whose tracker class imports it
    extra = {name for one in ("ray", *TRACKERS) for name in declared(extras[one])}
    assert extra - by_accelerate <= found
    found -= extra
    assert declared(project["dependencies"]) == found | WITHOUT_IMPORT.keys()


def test_all_that_tests_and_benchmarks_import_is_declared_and_nothing_else(project: dict[str, Any]) -> None:
    package, dev = declared(project["dependencies"]), declared(project["optional-dependencies"]["dev"])
    found = imported("tests", "benchmarks") - package - set(TRACKERS)
    assert not found & DEV_WITHOUT_IMPORT.keys(), "an exception that is none"
    assert dev == found | DEV_WITHOUT_IMPORT.keys()


def test_all_that_the_scripts_of_the_docs_import_is_declared_and_nothing_else(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    found = imported("docs") - declared(project["dependencies"]) - declared(extras["dev"])
    assert declared(extras["docs"]) == found | {"mkdocs-material"}  # the theme, in mkdocs.yml


def test_hooks_of_pre_commit_use_the_ruff_and_commands_of_tox() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    ruffs = {one for hook in hooks for one in hook.get("additional_dependencies", ())}
    assert ruffs
    assert all(f"deps = {one}\n" in tox for one in ruffs)
    commands = {hook["entry"].removesuffix(" --force-exclude") for hook in hooks}
    assert "mypy" in commands, "as test_typed_plugins.py runs it"
    for command in commands - {"mypy"}:
        assert f"\n    {command}" in tox


def test_the_site_needs_the_same_in_tox_and_for_users(project: dict[str, Any]) -> None:
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert all(f"    {one}\n" in tox for one in project["optional-dependencies"]["docs"])


def test_the_image_is_built_of_what_the_wheel_holds() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for folder in wheel["wheel"]["only-include"]:
        assert f"COPY {folder} {folder}\n" in dockerfile
        assert f"!{folder}" in let_in
