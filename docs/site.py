"""Writes the pages of the docs site that are made from the code and from files above this folder.

mkdocs runs this script (mkdocs.yml). The command line's page is the help of every verb, and the
API's page names the modules whose docstrings mkdocstrings reads.
"""

import contextlib
import io
import os
import re
from pathlib import Path

import mkdocs_gen_files

from lord_fast.cli import GROUPS, VERBS, main

ROOT = Path(__file__).parents[1]
COPIED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}
REPOSITORY = "https://github.com/lord-fast/lord-fast/blob/main/"
API = {
    "A trained model": ("lord_fast.lord.Lord",),
    "Training": ("lord_fast.train.start",),
    "Options": ("lord_fast.config",),
    "Data": ("lord_fast.data.store.ImageStore", "lord_fast.data.pack.pack"),
    "Evaluation": ("lord_fast.evaluate.score.score", "lord_fast.evaluate.probes"),
    "Kernels": ("lord_fast.kernels.ops",),
}


def help_of(verb: str) -> str:
    """Return the help of a verb as a terminal of 96 columns shows it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([verb, "--help"])
    return said.getvalue()


def command_line() -> str:
    """Return the page of the command line."""
    parts = ["# Command line", "This page is the output of `lord-fast COMMAND --help`."]
    names = {id(module): name for name, module in VERBS.items()}
    for title, modules in GROUPS.items():
        parts.append(f"## {title}")
        for module in modules:
            verb = names[id(module)]
            parts.append(f"### {verb}\n\n```text\n{help_of(verb).strip()}\n```")
    return "\n\n".join(parts) + "\n"


def api() -> str:
    """Return the page of the Python API."""
    parts = ["# Python API", "[From Python](../python.md) shows how these work together."]
    for title, names in API.items():
        parts += [f"## {title}", *(f"::: {name}" for name in names)]
    return "\n\n".join(parts) + "\n"


def linked_from_docs(text: str) -> str:
    """Change the links of a file in the root folder to those of a page of the site."""

    def change(match: re.Match[str]) -> str:
        target = match[1]
        if re.match(r"(https?:|#|mailto:)", target):
            return match[0]
        if target.startswith("docs/"):
            return f"]({target.removeprefix('docs/')})"
        return f"]({COPIED.get(target, REPOSITORY + target)})"

    return re.sub(r"\]\(([^)\s]+)\)", change, text)


os.environ["COLUMNS"] = "96"
for source, page in COPIED.items():
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(linked_from_docs((ROOT / source).read_text()))
for page, text in {"reference/cli.md": command_line(), "reference/api.md": api()}.items():
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(text)
