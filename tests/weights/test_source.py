"""Where models come from: cards, the hub's cache, and code that is never run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import huggingface_hub
import pytest

import builder
from builder.config import DirectionSettings, ModelSettings, ScanSettings, parse_settings
from builder.errors import CheckpointError, ConfigError
from builder.provenance import model_stamps
from builder.run_folder import Run
from builder.weights.checkpoint import Checkpoint
from builder.weights.open_source import open_source
from builder.weights.pair import Finder
from builder.weights.source import locate
from tests.weights import pico

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "89abcdef0123456789abcdef0123456789abcdef"
SCAN = ScanSettings(device="cpu", dtype="float32")


def _card(folder: Path, yaml: str) -> Path:
    (folder / "README.md").write_text(f"---\n{yaml}\n---\n# A model\n", encoding="utf-8")
    return folder


def _cached(cache: Path, repo: str, commit: str, ref: str = "main") -> Path:
    """The folder of a commit in a hub's cache, to be filled."""
    place = cache / f"models--{repo.replace('/', '--')}"
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / ref).write_text(commit)
    return place / "snapshots" / commit


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, and a hub that cannot be asked."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


# --- the base that a card names ---


@pytest.mark.parametrize(
    "yaml",
    [
        "base_model: ../base",
        "base_model: [../base]",
        "base_model:\n- ../base\n- ../base",
        "license: mit\nbase_model: '../base'\nbase_model_relation: finetune",
        "base_model: ../tuned/../base\nextra: {a: 1}",
    ],
)
def test_card_names_the_base(yaml: str, tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    given = pico.directions(base, tuned)
    named = pico.directions(None, _card(tuned, yaml))
    assert [d.content_hash for d in named.directions] == [d.content_hash for d in given.directions]
    assert given.facts["base_found"] == "given"
    assert named.facts["base_found"] == "named by the model card"


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("license: mit", "names no base_model"),
        ("base_model:", "names no base_model"),
        ("base_model: []", "names no base_model"),
        ("- base_model: a/b", "names no base_model"),
        ("base_model: [a/b, c/d]", r"names 2 base models \(a/b, c/d\)"),
        ("base_model: a/b\nbase_model_relation: quantized", "names a/b, but says .* quantization"),
        ("base_model: a/b\nbase_model_relation: merge", "names a/b, but says .* merge"),
        ("base_model: {a: b}", "gives as base_model is no name"),
        ("base_model: [[a/b]]", "gives as base_model is no name"),
        ("base_model: /etc", "'/etc', which is neither a hub id"),
        ("base_model: ~/base", "'~/base', which is neither a hub id"),
        ("base_model: ../../elsewhere", "which is neither a hub id nor a folder beside it"),
        ("base_model: .", "which is neither"),
        ("base_model: ..", "which is neither"),
        ("base_model: ../nowhere", "which is neither"),
        ("base_model: ../link", "which is neither"),
        ("base_model: ./" + "x" * 5000, "which is neither"),
        ('base_model: "./a\\0b"', "which is neither"),
        ("base_model: https://hub/a/b", "which is neither"),
        ("base_model: [" + "[" * 100_000, "cannot be read"),
        ("base_model: !!python/object/apply:os.system ['a b']", "which is neither a hub id"),
        ("base_model: &a [*a]", "cannot be read|no name"),
        ("base_model: 'open", "cannot be read"),
        ("\0", "cannot be read"),
        ("x: " + "y" * 600_000 + "\nbase_model: ../base", "names no base_model"),
    ],
)
def test_card_that_names_no_base_that_can_be_meant_is_refused(
    yaml: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    base, tuned = pico.pair(tmp_path / "models")
    base.rename(tmp_path / "models" / "base")
    (tmp_path / "models" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        ConfigError, match=rf"(?s)model\.base is needed .*{message}.* set it"
    ) as caught:
        pico.directions(None, _card(tuned, yaml))
    assert len(str(caught.value)) < 1000


def test_model_without_a_card_is_refused(tmp_path: Path) -> None:
    _, tuned = pico.pair(tmp_path)
    with pytest.raises(ConfigError, match=r"has no README\.md .* set it .*method = .raw."):
        pico.directions(None, tuned)
    assert pico.directions(None, tuned, method="raw").base is None


def test_entries_that_grow_without_bound_are_not_expanded(tmp_path: Path) -> None:
    _, tuned = pico.pair(tmp_path)
    merged = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
    )
    assert pico.directions(None, _card(tuned, f"{merged}base_model: ../base")).directions


def test_name_in_a_card_means_the_hub_and_nothing_here(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, tuned = pico.pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    base.rename(tmp_path / "org" / "base")
    _card(tuned, "base_model: org/base")
    with pytest.raises(CheckpointError, match="org/base: no such folder here, nor a model"):
        pico.directions(None, tuned)
    snapshot = _cached(cache, "org/base", COMMIT)
    pico.save("llama", snapshot)
    found = pico.directions(None, tuned)
    assert found.base is not None
    assert (found.base.path, found.base.revision) == ("org/base", COMMIT)


def test_revision_in_the_settings_holds_for_a_named_base(tmp_path: Path, cache: Path) -> None:
    _, tuned = pico.pair(tmp_path)
    _card(tuned, "base_model: org/base")
    lora = pico.adapter(
        tmp_path / "lora",
        {"model.layers.0.mlp.down_proj": pico.factors(pico.D_FF, 2, 0)},
        base_model_name_or_path="org/base",
        revision="main",
    )
    pico.save("llama", _cached(cache, "org/base", COMMIT))
    pico.save("llama", _cached(cache, "org/base", OTHER, "v2"), seed=3)
    for folder in (tuned, lora):
        for revision, commit in ((None, COMMIT), ("v2", OTHER), (OTHER, OTHER)):
            finder = Finder(ModelSettings(tuned=str(folder), base_revision=revision))
            assert finder.base(finder.tuned()).whole.revision == commit


def test_adapter_without_a_named_base_asks_its_card(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    factors = {"model.layers.0.mlp.down_proj": pico.factors(pico.D_FF, 2, 0)}
    lora = _card(pico.adapter(tmp_path / "lora", factors), "base_model: ../base")
    found = pico.directions(None, lora)
    assert found.facts["base_found"] == "named by the model card"
    assert found.facts["adapter_base"] == "base, named by the model card"


def test_adapter_from_the_hub_names_only_what_is_on_the_hub(tmp_path: Path, cache: Path) -> None:
    base, _ = pico.pair(tmp_path)
    factors = {"model.layers.0.mlp.down_proj": pico.factors(pico.D_FF, 2, 0)}
    lora = _cached(cache, "org/lora", COMMIT)
    for name in (str(base), "../../../../base", "./x"):
        pico.adapter(lora, factors, base_model_name_or_path=name)
        with pytest.raises(ConfigError, match=r"org/lora@.* which is no hub id; set model\.base"):
            Finder(ModelSettings(tuned="org/lora")).tuned()
    pico.adapter(lora, factors)
    _card(lora, "base_model: ../../../../base")
    with pytest.raises(ConfigError, match="names no base"):
        Finder(ModelSettings(tuned="org/lora")).tuned()
    pico.adapter(lora, factors, base_model_name_or_path="org/base")
    pico.save("llama", _cached(cache, "org/base", OTHER))
    settings = DirectionSettings(k=1, logit_lens_tokens=0, **pico.NO_CONTROLS)
    source = open_source(ModelSettings(tuned="org/lora"), settings)
    assert source.facts["adapter_base"] == "org/base, named by the adapter"
    assert source.facts["adapter_base_revision"] == OTHER


def _stamps(folder: Path, **model: str) -> dict[str, list[str]]:
    table = {"name": "x", "model": model, "corpus": {"sources": [{"path": "none.jsonl"}]}}
    found = model_stamps(Run(folder, parse_settings(table)))
    return {which: [name for name, _ in files] for which, files in found.items()}


def test_files_of_a_base_that_was_named_count_as_those_of_one_that_was_given(
    tmp_path: Path, cache: Path
) -> None:
    base, tuned = pico.pair(tmp_path)
    given = _stamps(tmp_path, tuned=str(tuned), base=str(base))
    assert "model.safetensors" in given["base"]
    named = _stamps(tmp_path, tuned=str(_card(tuned, "base_model: ../base")))
    assert named == given | {"base": [*given["base"], "README.md"]}
    factors = {"model.layers.0.mlp.down_proj": pico.factors(pico.D_FF, 2, 0)}
    one, two = (
        pico.adapter(tmp_path / name, factors, base_model_name_or_path="../base")
        for name in ("one", "two")
    )
    alone = _stamps(tmp_path, tuned=str(one))
    assert alone["base"] == given["base"]
    both = _stamps(tmp_path, tuned=str(one), base=str(two))
    assert both == {"tuned": alone["tuned"], "base": [*alone["tuned"], *given["base"]]}
    # What is on the hub is not asked for; its commit says as much.
    _card(tuned, "base_model: org/base")
    assert _stamps(tmp_path, tuned=str(tuned))["base"] == ["README.md"]


# --- the hub ---


def test_revision_is_pinned_to_its_commit(cache: Path) -> None:
    pico.save("llama", _cached(cache, "org/pico", COMMIT))
    pico.save("llama", _cached(cache, "org/pico", OTHER, "v2"), seed=3)
    assert locate("org/pico").revision == COMMIT
    assert locate("org/pico", "v2").revision == OTHER
    assert locate("org/pico", COMMIT).folder.name == COMMIT
    assert locate("org/pico", ask_hub=False).revision == COMMIT


_OFFLINE = """
import os, socket, sys

def refuse(*args, **kwargs):
    print("a request was attempted", file=sys.stderr, flush=True)
    os._exit(7)

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from builder.config import DirectionSettings, ModelSettings, ScanSettings
from builder.errors import CheckpointError
from builder.weights.directions import compute_directions

settings = DirectionSettings(k=2, random_controls=0, base_controls=0, shuffled_controls=0)
found = compute_directions(ModelSettings(tuned="org/tuned"), settings)
print(found.base, found.tuned, len(found.directions), found.facts["base_found"])
from builder.activations.model import load_model
load_model(ModelSettings(tuned="org/tuned"), ScanSettings(device="cpu", dtype="float32"))
try:
    compute_directions(ModelSettings(tuned="org/elsewhere"), settings)
except CheckpointError as error:
    print(error)
"""


def test_offline_the_cache_serves_and_no_request_is_attempted(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    pico.save_tokenizer(tuned)
    for repo, commit, folder in (("org/base", COMMIT, base), ("org/tuned", OTHER, tuned)):
        snapshot = _cached(tmp_path / "hub", repo, commit)
        snapshot.rmdir()
        folder.rename(snapshot)
    _card(tmp_path / "hub" / "models--org--tuned" / "snapshots" / OTHER, "base_model: org/base")
    # The constants are read when the library is imported, hence a process of its own.
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE],
        env=os.environ
        | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"},
        cwd=Path(builder.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == (
        f"org/base@{COMMIT[:12]} org/tuned@{OTHER[:12]} {2 * 2 * pico.N_LAYERS} "
        "named by the model card"
    )
    assert second.startswith("org/elsewhere: no such folder here, nor a model")


# --- what is no plain file, and what is code ---


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "README.md", "special_tokens_map.json"]
)
def test_pipe_in_a_model_folder_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    (tuned / name).unlink(missing_ok=True)
    os.mkfifo(tuned / name)
    with pytest.raises(CheckpointError, match=f"'{name}' is a pipe, a socket or a device"):
        pico.directions(base, tuned)


def test_links_in_a_folder_are_followed(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in tuned.iterdir():
        (linked / path.name).symlink_to(path)
    assert pico.directions(base, linked).directions


@pytest.fixture
def trapped(tmp_path: Path) -> tuple[Path, Path]:
    """A model folder with code in it, and the file that the code would leave if it ran."""
    pico.save("llama", tmp_path / "model")
    pico.save_tokenizer(tmp_path / "model")
    trace = tmp_path / "trace"
    code = f"""
        import pathlib
        pathlib.Path({str(trace)!r}).touch()
        from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast
        class Config(LlamaConfig): pass
        class Model(LlamaModel): pass
        class Tokenizer(PreTrainedTokenizerFast): pass
        """
    (tmp_path / "model" / "evil.py").write_text(textwrap.dedent(code))
    return tmp_path / "model", trace


def _merge_json(path: Path, **entries: object) -> None:
    table = json.loads(path.read_text()) | entries
    path.write_text(json.dumps(table))


_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoModelForCausalLM": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
}


def test_architecture_that_needs_its_own_code_is_refused_unrun(
    trapped: tuple[Path, Path],
) -> None:
    from builder.activations.model import check_model, load_model

    folder, trace = trapped
    _merge_json(folder / "config.json", model_type="own", auto_map=_MAP)
    models = ModelSettings(tuned=str(folder), base=str(folder))
    with pytest.raises(CheckpointError, match="code from a model's repository is never run"):
        Checkpoint.open(str(folder))
    for use in (check_model, load_model):
        with pytest.raises(CheckpointError):
            use(models, SCAN)
    assert not trace.exists()


def test_code_beside_a_known_architecture_is_not_run(trapped: tuple[Path, Path]) -> None:
    from builder.activations.model import load_model

    folder, trace = trapped
    _merge_json(folder / "config.json", auto_map=_MAP)
    _merge_json(folder / "tokenizer_config.json", auto_map=_MAP)
    assert pico.directions(None, folder, method="raw", logit_lens_tokens=3).directions
    load_model(ModelSettings(tuned=str(folder)), SCAN)
    assert not trace.exists()


def test_tokenizer_that_needs_its_own_code_is_not_run(trapped: tuple[Path, Path]) -> None:
    from builder.activations.model import load_model

    folder, trace = trapped
    (folder / "tokenizer.json").unlink()
    _merge_json(folder / "tokenizer_config.json", auto_map=_MAP, tokenizer_class="Tokenizer")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_model(ModelSettings(tuned=str(folder)), SCAN)
    assert not trace.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernel_from_the_hub_is_refused_by_name(key: str, trapped: tuple[Path, Path]) -> None:
    folder, _ = trapped
    _merge_json(folder / "config.json", **{key: "evil/kernel"})
    with pytest.raises(CheckpointError, match=r"asks for code from the hub .*evil/kernel"):
        Checkpoint.open(str(folder))


def test_remote_code_is_switched_on_nowhere() -> None:
    found = [
        match[0]
        for path in Path(builder.__file__).parent.rglob("*.py")
        for match in re.finditer(r"trust_remote_code\s*[=:]\s*(\w+)", path.read_text())
    ]
    assert found
    assert all(text.endswith("False") for text in found)
