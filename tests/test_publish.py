"""A site is checked before anything else, and put where it is asked to be without harm."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import yaml

from builder import cli
from builder.config import SiteSettings
from builder.errors import PublishError
from builder.pages import build_site
from builder.publish import limits
from builder.publish.branch import publish_branch
from builder.publish.checks import Checked, check_site
from builder.publish.copies import copy_site
from builder.publish.private_names import PrivateNames
from builder.publish.workflow import PATH, write_workflow
from builder.store import RunStore
from tests.pages.fixture import make_run

NOBODY = PrivateNames([], [])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of one small run whose source has a licence."""
    folder = tmp_path_factory.mktemp("publish")
    run = make_run(folder / "run", name="pico", title="Pico", layers=1, ranks=1, documents=12)
    with RunStore(run / "run.duckdb", read_only=False) as store:
        store.update_meta({"corpus": {"sources": [{"name": "chats", "licence": "CC0"}]}})
    build_site([run], folder / "site", SiteSettings(title="Pico: atlas", examples=4, context=8))
    return folder / "site"


@pytest.fixture
def site(built: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(built, tmp_path / "place" / "site"))


def relisted(site: Path, path: str, change: Callable[[str], str]) -> None:
    """Changes a file as if the build had written it so."""
    import hashlib

    content = change((site / path).read_text("utf-8")).encode()
    (site / path).write_bytes(content)
    listed = json.loads((site / "manifest.json").read_text("utf-8"))
    listed["files"][path] = [hashlib.sha256(content).hexdigest(), len(content), ""]
    (site / "manifest.json").write_text(json.dumps(listed), encoding="utf-8")


def good(site: Path) -> Checked:
    return Checked(site, "Pico: atlas", check_site(site, names=NOBODY).files, (), ())


def test_everything_that_is_wrong_is_told_at_once(site: Path) -> None:
    page = "m/pico/index.html"
    relisted(site, page, lambda t: t.replace("</main>", '<a href="gone.html">x</a></main>'))
    relisted(
        site, "index.html",
        lambda t: t.replace("</main>", '<a href="/m/">x</a><a href="search.html#nowhere">x</a>'
                            '<img src="file:///etc/passwd"></main>'),
    )  # fmt: skip
    (site / "search.html").write_text("changed", encoding="utf-8")
    (site / "methods.html").unlink()
    (site / "Notes.txt").write_text("mine", encoding="utf-8")
    (site / "link").symlink_to(site / "index.html")
    told = "\n".join(check_site(site, names=NOBODY).faults)
    for part in (
        "m/pico/index.html: links to m/pico/gone.html, which is not there",
        "index.html: '/m/' leads out of a site",
        "index.html: 'file:///etc/passwd' is an address that readers cannot follow",
        "index.html: links to #nowhere of search.html, which has no such place",
        "search.html: is not as it was built",
        "methods.html: is missing",
        "Notes.txt: is no file of the site, and has no name that a site's file can have",
        "link: a symbolic link",
    ):
        assert part in told, part


def test_places_that_scripts_make_are_places(site: Path) -> None:
    """Examples beyond those of the page itself are put in by its script."""
    from builder.pages.packed import unpacked

    page = next(iter(sorted((site / "m" / "pico").glob("l00.*.html"))))
    header, _, _ = unpacked((page.parent / "d" / page.with_suffix(".js").name).read_bytes())
    last = header["examples"][-1]
    roles = ["user", "assistant", "system", "tool", "text", "template"]
    anchor = f"{['max', 'min'][last[0]]}-{roles[last[1]]}-{last[6]}"
    link = f"m/pico/{page.name}#"
    relisted(
        site, "index.html",
        lambda t: t.replace("</main>", f'<a href="{link}{anchor}">x</a>'
                            f'<a href="{link}max-user-999999">x</a></main>'),
    )  # fmt: skip
    told = [fault for fault in check_site(site, names=NOBODY).faults if "index.html: " in fault]
    assert any("#max-user-999999" in fault for fault in told)
    assert not any(f"#{anchor} " in fault for fault in told)


def test_paths_and_names_of_this_machine_are_found_in_packed_scripts_too(site: Path) -> None:
    script = next((site / "m" / "pico" / "d").glob("*.js"))
    from builder.pages.packed import Packer

    content = Packer().file("page", {"texts": [], "examples": [], "x": "/srv/people/mara/site"})
    relisted(site, script.relative_to(site).as_posix(), lambda _: content.decode())
    relisted(site, "index.html", lambda t: t.replace("</main>", "by marasbox, Marasboxes</main>"))
    names = PrivateNames([Path("/srv/people/mara")], ["marasbox", "root", "abc"])
    found = check_site(site, names=names)
    assert [f for f in found.faults if "path of this machine" in f] == [
        f"{script.relative_to(site).as_posix()}: holds a path of this machine: /srv/people/mara"
    ]
    assert [w for w in found.warnings if "name of this machine" in w] == [
        "index.html: holds a name of this machine: marasbox"
    ]


def test_sources_without_a_licence_are_warned_of(site: Path) -> None:
    assert not [w for w in check_site(site, names=NOBODY).warnings if "licence" in w]

    def without(text: str) -> str:
        return text.replace('"licence":"CC0"', '"where":"x"')

    relisted(site, "api/pico/index.json", without)
    (told,) = [w for w in check_site(site, names=NOBODY).warnings if "licence" in w]
    assert told == "pico: no licence is stated for texts of chats"


def test_limits_come_with_a_plan_that_fits() -> None:
    mb = 10**6
    files = {
        "index.html": mb,
        **{f"m/{run}/{n}.html": mb for run in ("a", "b") for n in range(100)},
        **{f"m/{run}/d/{n}.js": 4 * mb for run in ("a", "b") for n in range(100)},
        "api/a/run.duckdb": 200 * mb,
        "api/b/examples.parquet": 60 * mb,
    }
    (refused, large) = limits.faults(files, "gh-pages", 20)
    assert refused.startswith("api/a/run.duckdb: 200")
    found = limits.kinds(files)
    assert (found.all, found.databases, found.tables) == (sum(files.values()), 200 * mb, 60 * mb)
    # Neither level alone is enough; 739 of 800 MB of examples and light tables are.
    assert "site.examples = " in large
    fewer = int(large.partition("site.examples = ")[2].split()[0])
    assert found.all - 260 * mb - found.scripts * (1 - fewer / 20) <= 10**9
    assert found.all - 260 * mb - found.scripts * (1 - (fewer + 2) / 20) > 10**9
    assert "2 models would fit into 2 sites" in large
    del files["m/a/0.html"]
    smaller = {path: n for path, n in files.items() if "/d/" not in path or "/a/" in path}
    assert list(limits.faults(smaller, "actions", 20)) == [
        next(limits.faults({"api/a/run.duckdb": 200 * mb}, "actions", 20))
    ]
    assert any("may take too long" in told for told in limits.warnings(smaller, "actions"))


def test_a_space_takes_so_many_files_in_a_folder() -> None:
    files = {f"m/a/{n}.html": 1 for n in range(10_001)} | {"api/a/run.duckdb": 20 * 10**6}
    (told,) = limits.faults(files, "space", 20)
    assert told.startswith("m/a: 10,001 files")
    (noted,) = limits.warnings(files, "space")
    assert "large-file storage" in noted


def test_a_copy_holds_the_site_alone(site: Path, tmp_path: Path) -> None:
    (site / "README.md").write_text("for people", encoding="utf-8")
    (site / ".git").mkdir()
    (site / ".git" / "config").write_text("x", encoding="utf-8")
    out = tmp_path / "copy"
    assert copy_site(good(site), out) == sum(path.is_file() for path in out.rglob("*"))
    assert (out / ".nojekyll").is_file()
    assert not (out / "README.md").exists()
    assert not (out / ".git").exists()
    assert check_site(out, names=NOBODY).files == good(site).files
    with pytest.raises(PublishError, match="not an empty folder"):
        copy_site(good(site), out)
    with pytest.raises(PublishError, match="lies in the site"):
        copy_site(good(site), site / "copy")


def test_a_space_has_a_card_that_is_read(site: Path, tmp_path: Path) -> None:
    copy_site(good(site), tmp_path / "space", as_space=True)
    _, front, _ = (tmp_path / "space" / "README.md").read_text("utf-8").split("---\n", 2)
    assert yaml.safe_load(front)["sdk"] == "static"
    assert yaml.safe_load(front)["title"] == "Pico: atlas"


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, an origin, and changes that nobody committed."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text(
        "[user]\nname = Test\nemail = test@example.org\n[init]\ndefaultBranch = main\n"
        "[core]\nautocrlf = true\n"
    )
    origin, folder = tmp_path / "origin.git", tmp_path / "repo"
    subprocess.run(["git", "init", "-q", "--bare", str(origin)], check=True)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    git(folder, "remote", "add", "origin", str(origin))
    (folder / "code.txt").write_text("one\n", encoding="utf-8")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First")
    (folder / "code.txt").write_text("two\n", encoding="utf-8")
    git(folder, "add", ".")
    (folder / "code.txt").write_text("three\n", encoding="utf-8")
    return folder


def test_a_branch_gets_the_site_and_the_working_tree_stays(site: Path, repository: Path) -> None:
    before = (git(repository, "status", "--porcelain=v2", "--branch"), git(repository, "diff"))
    checked = good(site)
    first = publish_branch(checked, str(repository))
    assert not first.is_same
    assert (
        git(repository, "status", "--porcelain=v2", "--branch"), git(repository, "diff"),
    ) == before  # fmt: skip
    assert git(repository, "ls-tree", "-r", "--name-only", "gh-pages").split() == sorted(
        checked.files
    )
    # To the byte, whatever the user's settings of line ends.
    for path in ("index.html", "api/pico/labels.parquet"):
        held = subprocess.run(
            ["git", "-C", str(repository), "show", f"gh-pages:{path}"],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        assert held == (site / path).read_bytes()
    assert git(repository, "log", "-1", "--format=%an", "gh-pages") == "Test"
    again = publish_branch(checked, str(repository))
    assert (again.is_same, again.commit) == (True, first.commit)


def test_history_and_a_domain_stay_unless_asked(site: Path, repository: Path) -> None:
    publish_branch(good(site), str(repository))
    git(repository, "worktree", "add", "-q", str(repository.parent / "pages"), "gh-pages")
    pages = repository.parent / "pages"
    (pages / "CNAME").write_text("atlas.example.org\n", encoding="utf-8")
    git(pages, "add", ".")
    git(pages, "commit", "-q", "-m", "Domain")
    with pytest.raises(PublishError, match="is checked out in"):
        publish_branch(good(site), str(repository))
    git(repository, "worktree", "remove", "--force", str(pages))
    relisted(site, "index.html", lambda text: text.replace("</main>", "<p>new</p></main>"))
    publish_branch(good(site), str(repository))
    assert git(repository, "rev-list", "--count", "gh-pages") == "3"
    assert git(repository, "show", "gh-pages:CNAME") == "atlas.example.org"
    publish_branch(good(site), str(repository), orphan=True)
    assert git(repository, "rev-list", "--count", "gh-pages") == "1"
    assert git(repository, "show", "gh-pages:CNAME") == "atlas.example.org"


def test_a_push_goes_to_origin_and_to_an_address(site: Path, repository: Path) -> None:
    origin = repository.parent / "origin.git"
    found = publish_branch(good(site), str(repository), push=True)
    assert git(origin, "rev-parse", "gh-pages") == found.commit
    relisted(site, "index.html", lambda text: text.replace("</main>", "<p>new</p></main>"))
    with pytest.raises(PublishError, match="add --push"):
        publish_branch(good(site), origin.as_uri())
    from_afar = publish_branch(good(site), origin.as_uri(), push=True)
    assert git(origin, "rev-parse", "gh-pages~1") == found.commit
    assert git(origin, "rev-parse", "gh-pages") == from_afar.commit
    # The local branch is behind now, and what origin has is not lost.
    relisted(site, "index.html", lambda text: text.replace("new", "newer"))
    tree = git(repository, "rev-parse", "main^{tree}")
    aside = git(repository, "commit-tree", "-m", "x", "-p", found.commit, tree)
    git(repository, "update-ref", "refs/heads/gh-pages", aside)
    with pytest.raises(PublishError, match="has commits that the local one has not"):
        publish_branch(good(site), str(repository), push=True)
    last = publish_branch(good(site), str(repository), push=True, orphan=True)
    assert git(origin, "rev-parse", "gh-pages") == last.commit
    assert git(origin, "rev-list", "--count", "gh-pages") == "1"


def test_no_message_repeats_a_key_in_an_address(site: Path, repository: Path) -> None:
    with pytest.raises(PublishError) as caught:
        publish_branch(good(site), "https://mara:s3cret@127.0.0.1:1/x.git", push=True)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(PublishError) as caught:
        publish_branch(good(site), "https://mara:s3cret@127.0.0.1:1/x.git")
    assert "s3cret" not in str(caught.value)


def test_a_workflow_is_yaml_with_the_least_rights(site: Path, repository: Path) -> None:
    with pytest.raises(PublishError, match="lies not in a folder of the repository"):
        write_workflow(good(site), repository)
    inside = Path(shutil.copytree(site, repository / "docs" / "site"))
    path = write_workflow(good(inside), repository)
    assert path == repository / PATH
    table: dict[Any, Any] = yaml.safe_load(path.read_text("utf-8"))
    assert table["permissions"] == {"contents": "read"}
    job = table["jobs"]["publish"]
    assert job["permissions"] == {"contents": "read", "pages": "write", "id-token": "write"}
    (upload,) = [step for step in job["steps"] if "upload-pages" in step["uses"]]
    assert upload["with"]["path"] == "docs/site"
    # YAML 1.1 reads "on" as true.
    assert table[True]["push"]["branches"] == ["main"]
    write_workflow(good(inside), repository)
    path.write_text("name: mine\n", encoding="utf-8")
    with pytest.raises(PublishError, match="is there already and not ours"):
        write_workflow(good(inside), repository)


class _Hub:
    """What the hub was asked."""

    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def __init__(self, token: str) -> None:
        self.token = token

    def create_repo(self, repo_id: str, **how: Any) -> str:
        self.asked.append(("create", {"repo_id": repo_id, **how}))
        if repo_id == "mara/forbidden":
            raise huggingface_hub.errors.HFValidationError(f"no, not with {self.token}")
        return f"https://hub.example/spaces/{repo_id}"

    def upload_folder(self, folder_path: Path, **how: Any) -> None:
        names = sorted(p.relative_to(folder_path).as_posix() for p in folder_path.rglob("*"))
        self.asked.append(("upload", {"names": names, **how}))


def test_a_space_is_made_and_holds_the_site_alone(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", _Hub)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(_Hub, "asked", [])
    command = ["publish", str(site), "--to", "space", "--push", "--repo"]
    assert cli.main([*command, "mara/atlas"]) == 1
    assert "HF_TOKEN" in capsys.readouterr().err
    assert _Hub.asked == []
    monkeypatch.setenv("HF_TOKEN", "hf_never-shown")
    assert cli.main([*command, "mara/atlas"]) == 0
    (create, upload) = _Hub.asked
    assert create[1] == {
        "repo_id": "mara/atlas", "repo_type": "space", "space_sdk": "static", "exist_ok": True,
    }  # fmt: skip
    assert {"README.md", "index.html", "manifest.json"} <= set(upload[1]["names"])
    assert upload[1]["delete_patterns"] == "*"
    assert cli.main([*command, "mara/forbidden"]) == 1
    told = capsys.readouterr()
    assert "hf_never-shown" not in told.err + told.out
    assert "https://hub.example/spaces/mara/atlas" in told.out


def test_the_command_refuses_and_publishes(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["publish", str(site)]) == 0
    assert cli.main(["publish", str(site), "--to", "folder"]) == 2
    assert cli.main(["publish", str(site), "--to", "folder", "--out", str(out)]) == 0
    assert (out / "index.html").is_file()
    (site / "index.html").write_text("spoilt", encoding="utf-8")
    assert cli.main(["publish", str(site), "--to", "folder", "--out", str(tmp_path / "no")]) == 1
    assert "is not as it was built" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert cli.main(["publish", str(tmp_path)]) == 1
