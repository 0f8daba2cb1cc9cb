"""A corpus is frozen whole or not at all, always the same, and grows without changing."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder import corpus_stage
from builder.activations.corpus import Document, cluster_sizes, read_checked, slice_documents
from builder.config import (
    CorpusSettings,
    ModelSettings,
    ScanSettings,
    Settings,
    Source,
    dump_settings,
)
from builder.corpus_stage import freeze_corpus
from builder.errors import ConfigError, CorpusError, DiskFullError, StoreError
from builder.run_folder import Run, checked_run, claimed, read_run, with_sources
from tests import micro

ROOT = Path(__file__).resolve().parent.parent


def write_rows(path: Path, n: int, seed: int) -> Path:
    """Rows of which some are copies, near-copies (also of other seeds') and faults."""
    rng = random.Random(seed)
    shared = random.Random(99)
    common = [micro.sentence(shared, 60) for _ in range(4)]
    rows: list[Any] = []
    for number in range(n):
        kind = rng.random()
        if kind < 0.15 and rows:
            rows.append(rng.choice(rows))
        elif kind < 0.4:
            words = rng.choice(common).split()
            words[rng.randrange(len(words))] = f"slot{number}"
            rows.append({"text": " ".join(words)})
        else:
            asked = {"role": "user", "content": micro.sentence(rng, 20)}
            said = {"role": "assistant", "content": micro.sentence(rng, 30)}
            rows.append({"messages": [asked, said], "source": f"s{number % 3}"})
    lines = [json.dumps(row) for row in rows]
    lines.insert(n // 2, "{broken")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_of(folder: Path, sources: tuple[Source, ...], scan: Any = None, **corpus: Any) -> Run:
    settings = Settings(
        name="run",
        model=ModelSettings(tuned="t"),
        corpus=CorpusSettings(sources=sources, max_bad_share=0.1, **corpus),
        scan=ScanSettings(
            **{"shard_documents": 16, "reservoir": 12, "held_out": 6, **(scan or {})}
        ),
    )
    return Run(folder, settings)


def freeze(run: Run) -> dict[str, Any]:
    with claimed(checked_run(run)):
        return freeze_corpus(run)


def documents_of(run: Run, frozen: dict[str, Any], part: int | None = None) -> list[Document]:
    parts = frozen["parts"] if part is None else [frozen["parts"][part]]
    return [
        document
        for item in parts
        for piece in item["slices"]
        for document in slice_documents(
            read_checked(run.corpus_path / piece["name"], piece["digest"]),
            read_checked(run.corpus_path / piece["notes"], piece["notes_digest"]),
        )
    ]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Source, Source]:
    one = write_rows(tmp_path / "one.jsonl", 90, seed=1)
    two = write_rows(tmp_path / "two.jsonl", 70, seed=2)
    return Source(path=str(one)), Source(path=str(two))


def said(document: Document) -> Any:
    return document.messages or document.text


def test_freezing_twice_gives_the_same_bytes(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    runs = [run_of(tmp_path / name, sources) for name in ("a", "b")]
    assert freeze(runs[0]) == freeze(runs[1])
    assert files_of(runs[0].corpus_path) == files_of(runs[1].corpus_path)
    assert freeze(runs[0]) == freeze(runs[1])


def test_another_process_sketches_the_same(tmp_path: Path, sources: tuple[Source, Source]) -> None:
    here = run_of(tmp_path / "here", sources)
    freeze(here)
    there = run_of(tmp_path / "there", sources)
    with claimed(there):
        pass
    code = (
        "import sys; from pathlib import Path; from builder.run_folder import existing_run;"
        "from builder.corpus_stage import freeze_corpus;"
        "freeze_corpus(existing_run(Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "RAYON_NUM_THREADS": "2"}
    subprocess.run(
        [sys.executable, "-c", code, str(there.folder)], cwd=ROOT, env=environment, check=True
    )
    assert files_of(here.corpus_path) == files_of(there.corpus_path)


def test_slices_of_another_size_change_nothing_but_the_slices(
    tmp_path: Path, sources: tuple[Source, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (1, 7, 1000):
        run = run_of(tmp_path / str(size), sources, {"shard_documents": size})
        frozen = freeze(run)
        sizes = [item["documents"] for item in frozen["parts"][0]["slices"]]
        assert max(sizes) <= size
        found.append(documents_of(run, frozen))
    monkeypatch.setattr(corpus_stage, "_SLICE_CHARACTERS", 1000)
    run = run_of(tmp_path / "characters", sources, {"shard_documents": 1000})
    frozen = freeze(run)
    assert len(frozen["parts"][0]["slices"]) > 10
    found.append(documents_of(run, frozen))
    assert found[0] == found[1] == found[2] == found[3]


def test_the_notes_say_what_the_documents_are(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    run = run_of(tmp_path / "run", sources)
    frozen = freeze(run)
    (part,) = frozen["parts"]
    documents = documents_of(run, frozen)
    assert part["documents"] == len(documents) == 160
    assert part["rows"] == 162
    assert part["dropped"] == {"not valid JSON": 2}
    assert {item.doc_id for item in documents} == set(range(162)) - {45, 91 + 35}
    by_text: dict[Any, set[tuple[int, int]]] = {}
    for document in documents:
        by_text.setdefault(said(document), set()).add((document.cluster, document.priority))
    assert all(len(known) == 1 for known in by_text.values())
    assert len({priority for known in by_text.values() for _, priority in known}) == len(by_text)
    seen: set[int] = set()
    for document in documents:
        assert document.is_first is (document.cluster not in seen)
        seen.add(document.cluster)
    # Four texts with a slot each, and the copies.
    assert len(seen) < len(by_text) - 20
    firsts = sorted((d for d in documents if d.is_first), key=lambda d: d.priority)
    assert {d.doc_id for d in documents if d.sampled} == {d.doc_id for d in firsts[:18]}
    clusters, n = cluster_sizes(run.corpus_path, frozen)
    counted = {cluster: sum(d.cluster == cluster for d in documents) - 1 for cluster in seen}
    assert dict(zip(clusters.tolist(), n.tolist(), strict=True)) == {
        cluster: more for cluster, more in counted.items() if more
    }


def test_the_seed_of_the_scan_deals_other_priorities_and_the_same_clusters(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    one = run_of(tmp_path / "one", sources)
    two = run_of(tmp_path / "two", sources, {"seed": -1})
    first, second = documents_of(one, freeze(one)), documents_of(two, freeze(two))
    assert [d.cluster for d in first] == [d.cluster for d in second]
    assert not {d.priority for d in first} & {d.priority for d in second}


@pytest.mark.parametrize("limit", [None, 120])
def test_a_source_that_is_added_gives_what_both_at_once_would(
    tmp_path: Path, sources: tuple[Source, Source], limit: int | None
) -> None:
    whole = run_of(tmp_path / "whole", sources, max_documents=limit)
    wanted = documents_of(whole, freeze(whole))
    grown = run_of(tmp_path / "grown", sources[:1], max_documents=limit)
    before = freeze(grown)
    kept = files_of(grown.corpus_path)
    grown = run_of(tmp_path / "grown", sources, max_documents=limit)
    after = freeze(grown)
    assert after["parts"][0] == before["parts"][0]
    assert {name: data for name, data in files_of(grown.corpus_path).items() if name in kept} == {
        **kept,
        "corpus.json": (grown.corpus_path / "corpus.json").read_bytes(),
    }
    offset = after["parts"][0]["rows"]
    found = [
        (d.doc_id + offset * number, said(d), d.source, d.cluster, d.is_first, d.priority)
        for number in (0, 1)
        for d in documents_of(grown, after, number)
    ]
    assert found == [
        (d.doc_id, said(d), d.source, d.cluster, d.is_first, d.priority) for d in wanted
    ]
    # Whatever is in the sample of the whole is in that of its part.
    sampled = {d.priority for d in documents_of(grown, after) if d.sampled}
    assert {d.priority for d in wanted if d.sampled} <= sampled
    for one, two in zip(
        cluster_sizes(whole.corpus_path, freeze(whole)),
        cluster_sizes(grown.corpus_path, after),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    names = [item["name"] for part in after["parts"] for item in part["slices"]]
    assert names == [f"{number:06d}.parquet" for number in range(len(names))]
    assert freeze(grown) == after


def test_a_run_that_is_full_takes_no_more(tmp_path: Path, sources: tuple[Source, Source]) -> None:
    freeze(run_of(tmp_path / "run", sources[:1], max_documents=20))
    with pytest.raises(ConfigError, match=r"corpus\.max_documents: the 20 documents"):
        freeze(run_of(tmp_path / "run", sources, max_documents=20))
    freeze(run_of(tmp_path / "run", sources[:1], max_documents=20))


def test_sources_can_be_added_and_not_changed(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    one, two = sources
    freeze(run_of(tmp_path / "run", sources))
    with pytest.raises(ConfigError, match="sources were added to its corpus; give the run folder"):
        checked_run(run_of(tmp_path / "run", (one,)))
    for other in ((two,), (two, one), (one, two.model_copy(update={"max_rows": 3}))):
        with pytest.raises(ConfigError, match="made with other settings"):
            checked_run(run_of(tmp_path / "run", other))
    with pytest.raises(ConfigError, match=r"corpus\.near_duplicate: 0\.8 there, 0\.9 now"):
        checked_run(run_of(tmp_path / "run", sources, near_duplicate=0.9))
    checked_run(run_of(tmp_path / "run", (*sources, one)))


def test_a_source_that_cannot_be_added_can_be_left_out_again(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    before = freeze(run_of(tmp_path / "run", sources))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(CorpusError, match="empty"):
        freeze(run_of(tmp_path / "run", (*sources, Source(path=str(empty)))))
    assert not list(tmp_path.glob("run/*.part"))
    assert freeze(run_of(tmp_path / "run", sources)) == before


@pytest.mark.parametrize("which", ["one.jsonl", "two.jsonl"])
def test_a_file_of_any_part_that_changed_is_refused(
    tmp_path: Path, sources: tuple[Source, Source], which: str
) -> None:
    freeze(run_of(tmp_path / "run", sources[:1]))
    freeze(run_of(tmp_path / "run", sources))
    with (tmp_path / which).open("a") as stream:
        stream.write('{"text": "one more"}\n')
    with pytest.raises(CorpusError, match="changed since this run began"):
        freeze(run_of(tmp_path / "run", sources))


def test_an_older_corpus_is_refused_with_advice(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    run = run_of(tmp_path / "run", sources)
    freeze(run)
    (run.corpus_path / "corpus.json").write_text('{"stamp": "x", "slices": [], "documents": 0}')
    with pytest.raises(StoreError, match="delete the run folder"):
        freeze(run)


def test_damaged_sketches_of_an_earlier_part_are_named(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    run = run_of(tmp_path / "run", sources[:1])
    path = run.corpus_path / freeze(run)["parts"][0]["sketches"]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CorpusError, match=r"sketches\.parquet: the frozen corpus is damaged"):
        freeze(run_of(tmp_path / "run", sources))


def in_a_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def killed_at(change: int, folder: Path, work: Callable[[], Any]) -> Callable[[], None]:
    """Work that kills itself just before the n-th time that it changes a file in the folder."""

    def child() -> None:
        left = change

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"} or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
            ):
                left -= str(arguments[0]).startswith(str(folder))
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    return child


def test_a_kill_at_any_moment_leaves_the_old_corpus_or_the_new(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    scan = {"shard_documents": 40}
    whole = run_of(tmp_path / "whole", sources[:1], scan)
    old = freeze(whole)
    shutil.copytree(whole.folder, tmp_path / "old")
    new = freeze(run_of(tmp_path / "whole", sources, scan))
    wanted = files_of(whole.corpus_path)
    outcomes = set()
    for change in range(1, 60):
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        shutil.copytree(tmp_path / "old", tmp_path / "killed")
        run = run_of(tmp_path / "killed", sources, scan)
        status = in_a_child(killed_at(change, run.folder, lambda run=run: freeze(run)))  # type: ignore[misc]
        left = json.loads((run.corpus_path / "corpus.json").read_text())
        assert left in (old, new)
        for part in range(len(left["parts"])):
            assert documents_of(run, left, part)
        outcomes.add(len(left["parts"]))
        if change % 2:  # the source that was being added is left out again
            assert freeze(run_of(tmp_path / "killed", sources[: len(left["parts"])], scan)) == left
        assert freeze(run) == new
        assert files_of(run.corpus_path) == wanted
        assert not list(run.folder.rglob("*.part"))
        if not os.WIFSIGNALED(status):
            break
    else:
        pytest.fail("it was never done")
    assert outcomes == {1, 2}


def test_adding_by_name_makes_paths_and_datasets_and_can_be_repeated(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "one.jsonl", 5, seed=1)
    run = run_of(tmp_path / "run", (Source(path=str(path)),))
    added = ["org/named", str(tmp_path), str(tmp_path / "*.jsonl"), "gone.jsonl", str(path)]
    grown = with_sources(run, added)
    assert grown.settings.corpus.sources[1:] == (
        Source(dataset="org/named"),
        Source(path=str(tmp_path)),
        Source(path=str(tmp_path / "*.jsonl")),
        Source(path=str(Path("gone.jsonl").absolute())),
    )
    assert with_sources(grown, added) == grown


def test_a_run_folder_remembers_what_was_added(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(dump_settings(run_of(tmp_path, sources[:1]).settings))
    add = [sources[1].path]
    here = (f"runs='{tmp_path}'", "name='run'")
    freeze(Run(tmp_path / "run", read_run(recipe, here).settings))
    for place, overrides in ((recipe, here), (tmp_path / "run", ())):
        for _ in range(2):  # a command that was killed is given again
            grown = read_run(place, overrides, add=add)
            assert grown.settings.corpus.sources == sources
            assert len(freeze(grown)["parts"]) == 2
    assert read_run(tmp_path / "run").settings.corpus.sources == sources


def test_sources_that_could_not_be_added_do_not_stay_with_the_run(
    tmp_path: Path, sources: tuple[Source, Source]
) -> None:
    freeze(run_of(tmp_path / "run", sources[:1]))
    before = files_of(tmp_path / "run" / "corpus"), (tmp_path / "run" / "run.toml").read_text()
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{broken\n" * 9)
    for _ in range(2):
        with pytest.raises(CorpusError, match="9 of 9 rows"):
            freeze(read_run(tmp_path / "run", add=[str(bad)]))
        assert freeze(read_run(tmp_path / "run"))["parts"]
        now = files_of(tmp_path / "run" / "corpus"), (tmp_path / "run" / "run.toml").read_text()
        assert now == before
    fresh = with_sources(run_of(tmp_path / "fresh", sources[:1]), [str(bad)])
    with pytest.raises(CorpusError, match="9 of 9 rows"):
        freeze(fresh)
    assert read_run(fresh.folder).settings.corpus.sources == sources[:1]


@pytest.mark.parametrize("again", [True, False])
def test_a_kill_before_the_settings_name_an_added_source_loses_nothing(
    tmp_path: Path,
    sources: tuple[Source, Source],
    monkeypatch: pytest.MonkeyPatch,
    again: bool,
) -> None:
    folder = tmp_path / "run"
    freeze(run_of(folder, sources[:1]))

    def stop(_run: Run) -> None:
        raise KeyboardInterrupt

    add = [sources[1].path]
    with monkeypatch.context() as patched:
        patched.setattr(corpus_stage, "write_settings", stop)
        with pytest.raises(KeyboardInterrupt):
            freeze(read_run(folder, add=add))
    assert sources[1].path not in (folder / "run.toml").read_text()
    assert len(freeze(read_run(folder, add=add if again else ()))["parts"]) == 2
    assert sources[1].path in (folder / "run.toml").read_text()
    assert read_run(folder).settings.corpus.sources == sources


def test_one_file_under_several_spellings_is_added_once(
    tmp_path: Path, sources: tuple[Source, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "run", sources[:1])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    spellings = ["one.jsonl", str(tmp_path / "run" / ".." / "one.jsonl"), "link/one.jsonl"]
    assert with_sources(run, spellings) == run
    grown = with_sources(run, ["two.jsonl", "link/two.jsonl"])
    assert grown.settings.corpus.sources == sources


@pytest.mark.parametrize("limit_kb", [1, 8, 30])
def test_no_space_left_is_one_message_and_freezing_goes_on_later(
    tmp_path: Path, sources: tuple[Source, Source], limit_kb: int
) -> None:
    old = freeze(run_of(tmp_path / "run", sources[:1]))
    grown = run_of(tmp_path / "run", sources)
    wanted = freeze(run_of(tmp_path / "other", sources[:1]))
    assert wanted == old
    wanted = freeze(run_of(tmp_path / "other", sources))

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_kb << 10, resource.RLIM_INFINITY))
        with pytest.raises(DiskFullError, match="no space left"):
            freeze(grown)

    assert in_a_child(full) == 0
    assert json.loads((grown.corpus_path / "corpus.json").read_text()) == old
    assert freeze(grown) == wanted
    assert files_of(grown.corpus_path) == files_of(tmp_path / "other" / "corpus")
