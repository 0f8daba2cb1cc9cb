"""How does a site get onto a branch that a host serves? As a commit made beside the working tree.

Git's own plumbing writes the files as they are, makes a tree and a commit, and moves the branch:
no checkout, no index and no working tree of the user's is touched, so it does not matter whether
theirs is clean. What is on the branch is replaced; its history stays unless asked, and so does
CNAME, by which a host knows a domain of one's own.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder.errors import PublishError, shown
from builder.publish.checks import Checked

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:)", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/@\s]+@")
#: What git is told by the environment, but for where it works.
_OURS = ("GIT_ASKPASS", "GIT_AUTHOR", "GIT_COMMITTER", "GIT_CONFIG", "GIT_SSH")
#: Files of the branch that no build makes and that stay.
_KEPT = ("CNAME",)


@dataclass(frozen=True, slots=True)
class Published:
    """What became of the branch; ``commit`` is what it is at, new unless ``is_same``."""

    branch: str
    commit: str
    is_same: bool
    is_pushed: bool


def publish_branch(
    checked: Checked,
    repo: str,
    *,
    branch: str = "gh-pages",
    push: bool = False,
    orphan: bool = False,
) -> Published:
    """Commits the site to a branch of a local repository or of one at an address.

    ``push`` sends the branch to ``origin``; an address needs it. ``orphan`` leaves its history out.
    Raises PublishError if the branch is checked out somewhere, or git fails; its author is the one
    that git is set up with.
    """
    with _repository(repo, push=push) as git:
        ref = f"refs/heads/{branch}"
        git("check-ref-format", ref)
        _refuse_checked_out(git, ref)
        is_remote = git.has_remote and (push or not git.finds(ref))
        old = git.finds(ref)
        if is_remote and (found := git.fetched(branch, needed=push)):
            if old and old != found and not orphan and not git.contains(old, found):
                raise PublishError(
                    f"{branch}: the one of origin has commits that the local one has not; "
                    "update it first (git fetch origin "
                    f"{branch}:{branch}), or give --orphan to replace both"
                )
            old = old if old and git.contains(old, found) else found
        tree = _tree(git, checked, old)
        if old and git("rev-parse", f"{old}^{{tree}}") == tree and not orphan:
            commit, is_same = old, True
        else:
            parents = () if orphan or not old else ("-p", old)
            message = f"Publish {checked.title}\n\n{len(checked.files)} files.\n"
            commit, is_same = git("commit-tree", tree, *parents, stdin=message.encode()), False
        local = git.finds(ref)
        if local != commit:
            git("update-ref", "-m", "weightatlas publish", ref, commit, local or "0" * 40)
        if push:
            # What is on the branch there is what was looked at, or the push is refused.
            force = [f"--force-with-lease={ref}:{git.seen}"] if orphan and git.seen else []
            git("push", "--quiet", *force, "origin", f"{ref}:{ref}")
        return Published(branch, commit, is_same, push)


class _Git:
    """Git in one repository; calling it gives the output of a command."""

    def __init__(self, folder: Path, extra: Mapping[str, str]) -> None:
        self._folder = folder
        # Never asks, in no language but one, and not for the repository of a hook that calls us.
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("GIT_") or key.startswith(_OURS)
        }
        self._environment = {**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **extra}
        #: The commit of the branch at origin, as it was fetched.
        self.seen = ""

    def __call__(self, *arguments: str, stdin: bytes = b"") -> str:
        done = self._run(arguments, stdin)
        if done.returncode:
            told = _SECRET.sub("", done.stderr.decode("utf-8", "replace").strip())
            said = _SECRET.sub("", " ".join(arguments[:2]))
            raise PublishError(f"git {said} failed: {shown(told) or 'it said nothing'}")
        return done.stdout.decode("utf-8", "replace").strip()

    def _run(self, arguments: Sequence[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603 - a list of arguments, no shell
                ["git", "-C", str(self._folder), *arguments],  # noqa: S607
                input=stdin,
                capture_output=True,
                env=self._environment,
                check=False,
            )
        except OSError as error:
            raise PublishError(f"git cannot be run: {error}") from error

    def finds(self, name: str) -> str:
        """The commit of a name; empty without one."""
        done = self._run(("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"), b"")
        return done.stdout.decode().strip() if done.returncode == 0 else ""

    def contains(self, commit: str, other: str) -> bool:
        """Whether ``other`` is the commit or one before it."""
        return self._run(("merge-base", "--is-ancestor", other, commit), b"").returncode == 0

    @property
    def has_remote(self) -> bool:
        """Whether there is an ``origin``."""
        return "origin" in self("remote").split()

    def fetched(self, branch: str, *, needed: bool) -> str:
        """The commit of a branch at origin, with its files' tree; empty without one.

        Only what was fetched before is looked at unless it is ``needed``.
        """
        if needed and self("ls-remote", "--heads", "origin", f"refs/heads/{branch}"):
            self("fetch", "--quiet", "--no-tags", "origin", f"refs/heads/{branch}")
            self.seen = self.finds("FETCH_HEAD")
            return self.seen
        return "" if needed else self.finds(f"refs/remotes/origin/{branch}")


@contextmanager
def _repository(repo: str, *, push: bool) -> Iterator[_Git]:
    """The repository that is meant, with an index of its own; of an address an empty one here."""
    with tempfile.TemporaryDirectory(prefix="weightatlas-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        if not _URL.match(repo):
            place = Path(repo)
            if not place.is_dir():
                raise PublishError(f"{shown(repo)}: is neither a folder nor an address")
            git = _Git(place, index)
            git("rev-parse", "--git-dir")
            if push and not git.has_remote:
                raise PublishError(f"{place}: has no remote named origin to push to")
            yield git
            return
        if not push:
            raise PublishError(
                f"{shown(_SECRET.sub('', repo))}: an address takes commits by a push only; "
                "add --push"
            )
        bare = Path(folder) / "repository"
        bare.mkdir()
        git = _Git(bare, index)
        git("init", "--quiet", "--bare")
        git("remote", "add", "origin", repo)
        yield git


def _refuse_checked_out(git: _Git, ref: str) -> None:
    """Moving a branch under a working tree would make all of its files look changed."""
    place = ""
    for line in git("worktree", "list", "--porcelain").splitlines():
        kind, _, value = line.partition(" ")
        if kind == "worktree":
            place = value
        elif kind == "branch" and value == ref:
            raise PublishError(
                f"{ref.removeprefix('refs/heads/')} is checked out in {place}; switch to another "
                "branch there first"
            )


def _tree(git: _Git, checked: Checked, old: str) -> str:
    """The tree of the site's files, and of those that stay."""
    paths = sorted(checked.files)
    names = "".join(f"{(checked.site / path).resolve()}\n" for path in paths)
    hashes = git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names.encode())
    rows = [f"100644 {digest}\t{path}" for path, digest in zip(paths, hashes.split(), strict=True)]
    if old:
        rows += [
            line.replace(" blob ", " ", 1)
            for line in git("ls-tree", old, "--", *_KEPT).splitlines()
            if " blob " in line
        ]
    git("read-tree", "--empty")
    git("update-index", "--add", "--index-info", stdin="".join(f"{row}\n" for row in rows).encode())
    return git("write-tree")
