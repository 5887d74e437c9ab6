"""Print what pip is told about indexes here (files and environment), as settings of uv's for a shell to evaluate.

uv does not read pip's configuration. What uv has been told itself wins. Runs on any Python 3.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys

# pip's option, uv's variable, what stands between several values
SETTINGS = (
    ("index-url", "UV_DEFAULT_INDEX", " "),
    ("extra-index-url", "UV_INDEX", " "),
    ("find-links", "UV_FIND_LINKS", ","),
    ("constraint", "UV_CONSTRAINT", " "),
    ("trusted-host", "UV_INSECURE_HOST", " "),
    ("no-index", "UV_NO_INDEX", " "),
    ("no-cache-dir", "UV_NO_CACHE", " "),
    ("timeout", "UV_HTTP_TIMEOUT", " "),
    ("default-timeout", "UV_HTTP_TIMEOUT", " "),
    ("cert", "SSL_CERT_FILE", " "),
    ("proxy", "ALL_PROXY", " "),
)
SECTIONS = ("global", "install", ":env:")  # in the order of their precedence, the highest last


def pip_configuration() -> dict[str, str]:
    """What ``pip config list`` says, for an installation: option and value."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    found = {section: {} for section in SECTIONS}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in found and value:
            found[section][option] = str(ast.literal_eval(value))
    return {option: value for section in SECTIONS for option, value in found[section].items()}


def uv_settings(pip: dict[str, str], environment: dict[str, str]) -> dict[str, str]:
    """The variables that tell uv the same; what is in ``environment`` already stays."""
    settings = {}
    for option, variable, separator in SETTINGS:
        values = pip.get(option, "").split()
        if values and variable not in environment:
            settings[variable] = separator.join(values)
    # pip takes the best version of all indexes, uv that of the first index which has the package.
    if "UV_INDEX_STRATEGY" not in environment:
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return settings


if __name__ == "__main__":
    for variable, value in uv_settings(pip_configuration(), dict(os.environ)).items():
        print(f"export {variable}={shlex.quote(value)}")
