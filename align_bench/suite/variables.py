"""Fill in a suite's environment variables, `${NAME}` and `${NAME:-default}`; no secrets, as reports show them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from align_bench.errors import SuiteError
from align_bench.records import Json
from align_bench.suite.strict import FromEnvironment

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

# As names of variables go: HF_TOKEN, OPENAI_API_KEY, DB_PASSWORD.
_SECRET_NAME = re.compile(
    r"(?i)(^|_)(secrets?|tokens?|passw(or)?d|passphrase|credentials?|(api|access|private)_?keys?)(_|$)"
)
# As tokens of the usual services begin; web tokens, private keys, logins in addresses.
_SECRET_VALUE = re.compile(
    r"\b(hf_|sk-|gh[oprsu]_|github_pat_|glpat-|xox[abprs]-)[\w-]{16,}|\b(AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{35}"
    r"|\beyJ[\w-]{8,}\.eyJ|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/@\s:]+:[^/@\s]+@"
)
_SHORTEST = 8  # characters of a secret that is looked for; a shorter one may stand in any text


def expanded(value: Json, path: Path) -> Json:
    """A value with the environment's variables filled in.

    Raises:
        SuiteError: one is not set and has no default, or its name or value looks like a secret.
    """
    if isinstance(value, Mapping):
        return {key: expanded(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [expanded(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, default = match.groups()
        if _SECRET_NAME.search(name):
            raise _secret(name, path, "looks like a secret")
        if name in os.environ:
            if _is_secret(os.environ[name]):
                raise _secret(name, path, "holds what looks like a secret")
            return os.environ[name]
        if default is None:
            raise SuiteError(
                f"{path}: the environment variable {name} is not set", fix=f"export {name}=…, or use --set"
            )
        return str(default)

    return FromEnvironment(_VARIABLE.sub(fill, value)) if _VARIABLE.search(value) else value


def as_far_as_set(value: Json) -> Json:
    """A value with the environment's variables filled in; as it is written where one of them is not set."""
    try:
        return expanded(value, Path())
    except SuiteError:
        return value


def _is_secret(value: str) -> bool:
    """Whether it has the form of a token, or holds the value of a variable that is named like a secret."""
    if _SECRET_VALUE.search(value):
        return True
    named = (held for name, held in os.environ.items() if _SECRET_NAME.search(name))
    return any(len(held) >= _SHORTEST and held in value for held in named)


def _secret(name: str, path: Path, why: str) -> SuiteError:
    return SuiteError(
        f"{path}: ${{{name}}} {why}, and the report shows what its suite says",
        fix="tokens are read from the environment where they are needed; give paths a variable of another name",
    )
