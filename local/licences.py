"""The licences of every locked package, as NOTICE lists them.

    python -m local.licences .venv/audit/bin/pip-licenses .venv/dev .venv/aws ...

Reads what is installed in the environments, and writes NOTICE. A package that is locked but not
installed on this machine, or says no licence, needs an entry in `ELSEWHERE`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from local.embedded import PROJECT

NOTICE = PROJECT / "NOTICE"

Package = tuple[str, str]
"""Its name in lower case with `-`, and its version."""

# Packages of other systems or other Pythons, and cookiecutter, whose metadata say nothing. By their
# own metadata, by those of another version (av, networkx, numpy), or by its LICENSE (cookiecutter).
ELSEWHERE = {
    "av": "BSD-3-Clause",
    "cookiecutter": "BSD-3-Clause",
    "networkx": "BSD-3-Clause",
    "numpy": "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    "pywin32": "PSF-2.0",
    "soupsieve": "MIT",
}

HEAD = """\
Dropreel's own code is under the MIT licence: see LICENSE.

These are the locked libraries with the licences that they declare. `make licences` writes this
file. The wheels of the media layer bundle other libraries: see layers/media/NOTICE.
"""


def locked(files: Iterator[Path]) -> set[Package]:
    """The packages that requirements files pin."""
    pins = (
        pin
        for file in files
        for pin in re.findall(r"^([\w.-]+)==([^\s;]+)", file.read_text(), re.M)
    )
    return {(_plain(name), version) for name, version in pins}


def of_the_layers() -> set[Package]:
    return locked(PROJECT.glob("layers/*/requirements.txt"))


def of_the_tools() -> set[Package]:
    return locked(PROJECT.glob("requirements/*.txt")) - of_the_layers()


def declared(pip_licenses: str, environment: str) -> dict[Package, str]:
    """What the packages of an environment say."""
    ended = subprocess.run(
        [
            *(pip_licenses, "--python", f"{environment}/bin/python"),
            *("--format", "json", "--from", "mixed", "--with-system"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        (_plain(one["Name"]), one["Version"]): one["License"] for one in json.loads(ended.stdout)
    }


def notice(licences: dict[Package, str]) -> str:
    """The text of NOTICE. Raises KeyError for a package without a licence."""
    known = {package: said for package, said in licences.items() if said != "UNKNOWN"}
    parts = [HEAD]
    for title, packages in (
        ("Shipped in the layers", of_the_layers()),
        ("Tools on the developer's machine, shipped nowhere", of_the_tools()),
    ):
        lines = [
            f"{name} {version}: {known.get((name, version)) or ELSEWHERE[name]}"
            for name, version in sorted(packages)
        ]
        parts.append("\n".join([title, "-" * len(title), *lines, ""]))
    return "\n".join(parts)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    pip_licenses, *environments = sys.argv[1:]
    licences: dict[Package, str] = {}
    for environment in environments:
        licences |= declared(pip_licenses, environment)
    NOTICE.write_text(notice(licences), "utf-8")


if __name__ == "__main__":
    main()
