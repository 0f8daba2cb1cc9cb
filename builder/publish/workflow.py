"""The GitHub workflow that publishes a site lying in a repository, whenever it changes there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from builder.errors import PublishError
from builder.publish.checks import Checked

PATH = ".github/workflows/publish-atlas.yml"
_MARK = "# Written by weightatlas publish --to actions."
_TEXT = """\
{mark}
name: Publish the atlas
on:
  push:
    branches: [{branch}]
    paths: [{paths}, {own}]
  workflow_dispatch:
permissions:
  contents: read
concurrency:
  group: pages
  cancel-in-progress: false
jobs:
  publish:
    runs-on: ubuntu-latest
    permissions:
      contents: read
      pages: write
      id-token: write
    environment:
      name: github-pages
      url: ${{{{ steps.deployment.outputs.page_url }}}}
    steps:
      - uses: actions/checkout@v7
        with:
          persist-credentials: false
      - uses: actions/configure-pages@v6
      - uses: actions/upload-pages-artifact@v5
        with:
          path: {site}
      - id: deployment
        uses: actions/deploy-pages@v5
"""


def write_workflow(checked: Checked, repo: Path) -> Path:
    """The file that was written; the site must lie in the repository.

    Raises PublishError if it does not, if ``repo`` is no working tree, or if a file of that name
    was written by somebody else.
    """
    top = Path(_git(repo, "rev-parse", "--show-toplevel")).resolve()
    site = checked.site.resolve()
    if site == top or top not in site.parents:
        raise PublishError(
            f"{checked.site}: lies not in a folder of the repository {repo}; build it there, and "
            "commit it"
        )
    branch = _git(repo, "symbolic-ref", "--short", "HEAD")
    place = site.relative_to(top).as_posix()
    # JSON's strings are strings of YAML as well.
    text = _TEXT.format(
        mark=_MARK,
        branch=json.dumps(branch),
        paths=json.dumps(f"{place}/**"),
        own=json.dumps(PATH),
        site=json.dumps(place),
    )
    target = top / PATH
    try:
        if target.exists() and not target.read_text(encoding="utf-8").startswith(_MARK):
            raise PublishError(f"{target}: is there already and not ours; remove it first")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError(f"{target}: could not be written: {error}") from error
    return target


def _git(repo: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            ["git", "-C", str(repo), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise PublishError(f"git cannot be run: {error}") from error
    if done.returncode:
        raise PublishError(f"{repo}: is no working tree of git on a branch; see --repo")
    return done.stdout.strip()
