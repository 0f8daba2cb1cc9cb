"""The project around the package: what it declares, pins, ships and documents is true."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import itertools
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import builder
from builder.config import Settings, known_settings, load_settings, parse_settings

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
#: Recipes of models that everyone can get.
PUBLISHED = ("qwen2.5-7b-instruct", "llama-3.1-8b-instruct", "olmo-2-7b-instruct")
TEMPLATE = ROOT / "recipes" / "local-folder.toml.example"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
#: What `weightatlas --help` must answer without.
HEAVY = ("torch", "duckdb", "ray", "transformers", "datasets", "numpy")


def declared(*extras: str) -> dict[str, Requirement]:
    """What the project and the given extras ask for, by canonical name."""
    texts = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        texts += PROJECT["project"]["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(text).name): Requirement(text) for text in texts}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {name: version for name, _, version in pairs}


def template_table() -> dict[str, Any]:
    """The template with its commented settings in force (``#key = value``, no space after #)."""
    text = TEMPLATE.read_text(encoding="utf-8")
    return tomllib.loads(re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE))


def leaves(node: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted names, spelled as ``known_settings`` does, and values of a table of settings."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            yield from leaves(value[0], f"{prefix}{key}[].")
        else:
            yield prefix + key, value


@pytest.mark.parametrize("recipe", [*RECIPES, TEMPLATE], ids=lambda path: path.name)
def test_recipe_is_accepted_as_it_is(recipe: Path) -> None:
    settings = load_settings(recipe)

    assert settings.model.base
    assert settings.corpus.sources


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipe_names_itself_after_its_file_and_states_every_licence(recipe: Path) -> None:
    settings = load_settings(recipe)

    assert settings.name == recipe.stem
    assert all(source.licence for source in settings.corpus.sources)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_of_a_published_model_says_how_to_run_it_and_what_it_needs(name: str) -> None:
    text = (ROOT / "recipes" / f"{name}.toml").read_text(encoding="utf-8")

    assert f"weightatlas build recipes/{name}.toml" in text
    assert [need for need in ("Disk:", "GPU:", "Memory:", "Time:") if need not in text] == []
    assert "estimates" in text


@pytest.mark.parametrize("recipe", [*RECIPES, TEMPLATE], ids=lambda path: path.name)
def test_recipe_is_listed_in_the_readme(recipe: Path) -> None:
    readme = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")

    assert f"({recipe.name})" in readme


def test_template_names_every_setting_and_no_other() -> None:
    assert sorted(name for name, _ in leaves(template_table())) == sorted(known_settings())


def test_template_is_accepted_with_every_commented_setting_in_force() -> None:
    # "dataset" is empty there: a source has one place only.
    assert isinstance(parse_settings(template_table()), Settings)


def test_template_explains_every_setting_or_the_group_it_is_in() -> None:
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    unexplained = [
        line
        for before, line in itertools.pairwise(lines)
        if re.match(r"#?[a-z_]+ = ", line) and not before.strip()
    ]

    assert unexplained == []


def test_template_shows_the_defaults() -> None:
    required = {
        "name": "shown",
        "model": {"tuned": "shown"},
        "corpus": {"sources": [{"path": "shown"}]},
    }
    # As TOML has them: lists, not tuples.
    defaults = dict(leaves(parse_settings(required).model_dump(mode="json")))
    shown = dict(leaves(tomllib.loads(TEMPLATE.read_text(encoding="utf-8"))))
    given = {"name", "model.base", "model.tuned", "corpus.sources[].path"}

    assert {name: value for name, value in shown.items() if name not in given} == {
        name: value for name, value in defaults.items() if name not in given and value is not None
    }


def test_every_declared_dependency_is_pinned() -> None:
    extras = PROJECT["project"]["optional-dependencies"]

    assert declared(*extras).keys() - pins().keys() == set()


def test_every_pin_satisfies_what_is_declared() -> None:
    pinned = pins()
    requirements = declared(*PROJECT["project"]["optional-dependencies"])
    outside = [
        str(requirement)
        for name, requirement in requirements.items()
        if pinned[name] not in requirement.specifier
    ]

    assert outside == []


def test_everything_the_pinned_packages_need_is_pinned_too() -> None:
    pinned = pins()
    missing = set()
    for name in pinned:
        try:
            needed = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # of an optional extra that is not installed here
        for text in needed:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                missing.add(canonicalize_name(requirement.name))
    # CUDA builds of torch bring their libraries with them, pinned by torch itself.
    cuda = {name for name in missing if name.startswith(("nvidia-", "cuda-")) or name == "triton"}

    assert missing - cuda - pinned.keys() == set()


def test_pins_are_exact_public_versions_in_order() -> None:
    pinned = pins()

    assert list(pinned) == sorted(pinned)
    assert [version for version in pinned.values() if str(Version(version)) != version] == []
    assert [version for version in pinned.values() if Version(version).local] == []


def test_constraints_name_no_host() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")

    assert re.findall(r"://|index-url|find-links|\.(?:org|com|io|net)\b", text) == []


def third_party_imports(folder: Path) -> set[str]:
    """Top-level names that the modules in a folder import and that are not the standard library."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    tops = {name.partition(".")[0] for name in names}
    return tops - sys.stdlib_module_names - {"builder", "tests", "bench"}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("builder", ("cluster",)), ("tests", ("test", "cluster")), ("tools", ("test",))],
)
def test_every_import_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    distributions = importlib.metadata.packages_distributions()
    allowed = declared(*extras).keys()
    undeclared = {
        name
        for name in third_party_imports(ROOT / folder)
        if not allowed & {canonicalize_name(dist) for dist in distributions.get(name, [name])}
    }

    assert undeclared == set()


def test_changelog_has_the_current_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert f"## [{builder.__version__}]" in text


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import json, sys\n"
        "sys.argv = ['weightatlas', '--help']\n"
        "from builder.cli import main\n"
        "try:\n"
        "    code = main()\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        "print(json.dumps({'code': code or 0, 'modules': sorted(sys.modules)}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stderr.splitlines()[-1])

    assert result["code"] == 0
    assert "weightatlas" in done.stdout
    assert [name for name in HEAVY if name in result["modules"]] == []


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def files_under(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["templates", "static"])
def test_wheel_has_every_authored_asset(wheel_names: list[str], folder: str) -> None:
    authored = files_under(ROOT / folder)

    assert authored
    assert [name for name in authored if f"builder/assets/{folder}/{name}" not in wheel_names] == []


@pytest.mark.slow
def test_wheel_has_every_file_of_the_package(wheel_names: list[str]) -> None:
    files = files_under(ROOT / "builder")

    assert "py.typed" in files
    assert any(re.fullmatch(r"organisms/pairs/.+\.safetensors", name) for name in files)
    assert [name for name in files if f"builder/{name}" not in wheel_names] == []


@pytest.mark.slow
def test_wheel_has_nothing_but_the_package(wheel_names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel_names}

    assert tops == {"builder", f"weightatlas-{builder.__version__}.dist-info"}
    assert [
        name for name in wheel_names if re.search(r"(^|/)(tests?/|test_|__pycache__)", name)
    ] == []
