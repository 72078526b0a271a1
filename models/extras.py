"""How to install what a feature needs and the core leaves out: the extras of pyproject.toml."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NAME = "clipdex"


def how_to_install(extra: str) -> str:
    """The command that installs an extra into the Python that runs.

    The project isn't on PyPI, so its name can't stand in the command: a checkout that was installed
    as editable is named by its folder; elsewhere the extra's own requirements are named.
    """
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    folder = _checkout()
    if folder is not None:
        return f"{pip} -e {shlex.quote(f'{folder}[{extra}]')}"
    return " ".join([pip, *(shlex.quote(one) for one in requirements(extra))])


def requirements(extra: str) -> list[str]:
    """What an extra consists of, such as ["optuna>=4.5", ...].

    Raises: KeyError if there is no such extra; importlib.metadata.PackageNotFoundError.
    """
    found = [
        requirement.partition(";")[0].strip()
        for requirement in importlib.metadata.requires(_NAME) or []
        if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", requirement)
    ]
    if not found:
        raise KeyError(extra)
    return found


def _checkout() -> str | None:
    """The folder that was installed as editable, or that is run without having been installed.

    Source: PEP 610, direct_url.json.
    """
    try:
        text = importlib.metadata.distribution(_NAME).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return str(Path(__file__).resolve().parents[1])
    origin = json.loads(text) if text else {}
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return unquote(urlsplit(origin["url"]).path)
