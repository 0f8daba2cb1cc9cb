"""The scan against a loop that takes one document, one direction and one token at a time."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builder.activations.accumulate import best_candidates
from builder.activations.corpus import Document
from builder.activations.scan import Scanner, write_shard
from builder.activations.tokens import DocumentTokenizer, TokenizedDocument
from builder.config import ScanSettings
from builder.errors import ScanError
from builder.records import CONTENT_ROLES, HISTOGRAM_BINS, POLES, ROLES, DirectionSet
from builder.store import RunStore, write_database
from tests import micro

SETTINGS = ScanSettings(top=5, window=6, batch_tokens=600, reservoir=10, sink_factor=3.0)
#: Float32 results may differ by the order of additions inside the model.
TOLERANCE = 3e-5


def scan_to_database(
    folder: Path,
    documents: list[Document],
    settings: ScanSettings = SETTINGS,
    shards: int = 1,
    order: list[int] | None = None,
    directions: DirectionSet | None = None,
) -> RunStore:
    directions = directions or micro.make_directions()
    scanner = Scanner(micro.make_model(), directions, settings)
    cuts = np.array_split(np.arange(len(documents)), shards)
    folders = []
    for number in order or range(shards):
        place = folder / f"{number:03d}"
        place.mkdir(parents=True)
        write_shard(scanner.scan([documents[i] for i in cuts[number]]), place, settings)
        folders.append(place)
    path = folder / "run.duckdb"
    write_database(
        path, directions, folders, top=settings.top, reservoir=settings.reservoir, meta={}
    )
    return RunStore(path)


def loop(documents: list[Document]) -> Any:
    """The oracle: extremes and histograms, one document at a time."""
    model, directions = micro.make_model(), micro.make_directions()
    tokenizer = DocumentTokenizer(model.tokenizer, 256)
    extremes: dict[Any, list[Any]] = defaultdict(list)
    counts: dict[Any, Any] = defaultdict(lambda: np.zeros(HISTOGRAM_BINS, dtype=np.int64))
    for item in tokenizer.tokenize(documents):
        assert isinstance(item, TokenizedDocument)
        streams: list[torch.Tensor] = []
        hooks = [
            layer.register_forward_hook(
                lambda _m, _i, out, streams=streams: streams.append(
                    out[0] if isinstance(out, tuple) else out
                )
            )
            for layer in model.layers
        ]
        with torch.no_grad():
            model.backbone(input_ids=torch.from_numpy(item.ids.astype(np.int64))[None])
        for hook in hooks:
            hook.remove()
        for direction in directions.directions:
            stream = streams[direction.hookpoint.layer][0].double().numpy()
            norms = np.linalg.norm(stream, axis=1)
            ordinary = sorted(norms[~item.special])
            median = ordinary[(len(ordinary) - 1) // 2]
            values = stream @ direction.vector / norms
            for role_index, role in enumerate(ROLES):
                usable = [
                    t
                    for t in range(len(item.ids))
                    if item.roles[t] == role_index
                    and not item.special[t]
                    and norms[t] <= SETTINGS.sink_factor * median
                ]
                for t in usable:
                    place = int((values[t] + 1) * HISTOGRAM_BINS / 2)
                    counts[direction.id, role][place] += 1
                for pole, sign in zip(POLES, (1, -1), strict=True):
                    if usable:
                        best = max(usable, key=lambda t: sign * values[t])
                        extremes[direction.id, role, pole].append(
                            (-sign * values[best], item.doc_id, best, values)
                        )
    return {key: sorted(rows, key=lambda r: r[:2]) for key, rows in extremes.items()}, counts


def test_examples_and_histograms_equal_a_loop_over_documents(tmp_path: Path) -> None:
    documents = micro.documents(60)
    extremes, counts = loop(documents)
    with scan_to_database(tmp_path, documents) as store:
        compared = 0
        for row in store.directions():
            for role in ROLES:
                for pole in POLES:
                    wanted = extremes.get((row.id, role, pole), [])[: SETTINGS.top]
                    found = store.examples(row.id, pole=pole, role=role)
                    assert [e.window.doc_id for e in found] == [w[1] for w in wanted]
                    for example, (value, _, position, values) in zip(found, wanted, strict=True):
                        assert abs(example.value) == pytest.approx(abs(value), abs=TOLERANCE)
                        assert example.window.start + example.peak == position
                        start = max(position - SETTINGS.window, 0)
                        window = values[start : position + SETTINGS.window + 1]
                        assert example.activations / 32767 == pytest.approx(window, abs=1e-4)
                        compared += 1
            for histogram in store.histograms(row.id):
                wanted_counts = counts[row.id, histogram.role]
                assert histogram.counts.sum() == wanted_counts.sum()
                # A value on the edge of two bins may fall on either side.
                assert np.abs(histogram.counts - wanted_counts).sum() <= 2
        assert compared == 600


def test_a_document_is_listed_once_under_any_by_its_best_content_role(tmp_path: Path) -> None:
    documents = micro.documents(60)
    extremes, _ = loop(documents)
    with scan_to_database(tmp_path, documents) as store:
        for row in store.directions():
            for pole in POLES:
                best: dict[int, float] = {}
                for role in CONTENT_ROLES:
                    for value, doc_id, _, _ in extremes.get((row.id, role, pole), []):
                        best[doc_id] = min(best.get(doc_id, 9.0), value)
                wanted = sorted(best, key=lambda doc_id: (best[doc_id], doc_id))[: SETTINGS.top]
                found = store.examples(row.id, pole=pole, role="any")
                assert [e.window.doc_id for e in found] == wanted
                assert [e.place for e in found] == list(range(SETTINGS.top))


def dump_without_floats(store: RunStore) -> dict[str, list[Any]]:
    keep = {
        "examples": "direction, role, pole, place, any_place, doc_id, source, start, peak, "
        "duplicates, text, token_ends, roles",
        "reservoir": "*",
        "counts": "*",
    }
    return {
        table: store._connection.execute(f"SELECT {names} FROM {table} ORDER BY ALL").fetchall()
        for table, names in keep.items()
    }


@pytest.mark.parametrize(
    ("batch_tokens", "shards", "order"),
    [(64, 1, None), (5000, 1, None), (600, 7, None), (600, 7, [6, 2, 0, 5, 1, 4, 3])],
)
def test_the_database_does_not_depend_on_batch_size_or_shard_order(
    tmp_path: Path, batch_tokens: int, shards: int, order: list[int] | None
) -> None:
    documents = micro.documents(60)
    settings = SETTINGS.model_copy(update={"batch_tokens": batch_tokens})
    with (
        scan_to_database(tmp_path / "one", documents) as one,
        scan_to_database(tmp_path / "two", documents, settings, shards, order) as two,
    ):
        assert dump_without_floats(one) == dump_without_floats(two)
        assert [r.n for r in one.ranges()] == [r.n for r in two.ranges()]
        for a, b in zip(one.ranges(), two.ranges(), strict=True):
            assert (a.minimum, a.maximum, a.mean, a.std) == pytest.approx(
                (b.minimum, b.maximum, b.mean, b.std), abs=TOLERANCE
            )


def test_shards_of_the_same_documents_merge_to_equal_databases_in_any_order(
    tmp_path: Path,
) -> None:
    documents = micro.documents(40)
    with (
        scan_to_database(tmp_path / "one", documents, shards=5) as one,
        scan_to_database(tmp_path / "two", documents, shards=5, order=[4, 1, 3, 0, 2]) as two,
    ):
        assert one.dump() == two.dump()


def test_equal_texts_are_listed_once_and_counted(tmp_path: Path) -> None:
    documents = micro.documents(30)
    copies = [
        Document(
            100 + i, documents[i % 10].source, documents[i % 10].messages, documents[i % 10].text
        )
        for i in range(20)
    ]
    with (
        scan_to_database(tmp_path / "one", documents) as one,
        scan_to_database(tmp_path / "two", documents + copies, shards=4) as two,
    ):
        for row in one.directions():
            for plain, repeated in zip(one.examples(row.id), two.examples(row.id), strict=True):
                if plain.role == "template":
                    # Documents begin with the same tokens, so many tie but for the last bit, and
                    # which of them stand in a list (and are counted) depends on the batches.
                    continue
                assert plain.window.doc_id == repeated.window.doc_id
                assert repeated.duplicates == (2 if plain.window.doc_id < 10 else 0)


def test_windows_show_the_text_of_their_tokens(tmp_path: Path) -> None:
    documents = micro.documents(30)
    model = micro.make_model()
    by_id = {
        item.doc_id: item
        for item in DocumentTokenizer(model.tokenizer, 256).tokenize(documents)
        if isinstance(item, TokenizedDocument)
    }
    with scan_to_database(tmp_path, documents) as store:
        windows = [e.window for row in store.directions()[:3] for e in store.examples(row.id)]
        for window in [*windows, *store.reservoir()]:
            item = by_id[window.doc_id]
            stop = window.start + len(window.token_ends)
            first = int(item.ends[window.start - 1]) if window.start else 0
            assert window.text == item.text[first : int(item.ends[stop - 1])]
            assert int(window.token_ends[-1]) == len(window.text)


def test_the_beginning_of_sequence_and_sinks_are_left_out_and_counted(tmp_path: Path) -> None:
    documents = micro.documents(40)
    settings = SETTINGS.model_copy(update={"sink_factor": 1.2})
    with scan_to_database(tmp_path, documents, settings) as store:
        counts = {(c.what, c.name, c.layer): c.n for c in store.counts()}
        tokens = sum(n for (what, _, _), n in counts.items() if what == "tokens")
        bos = counts["excluded", "beginning of sequence", None]
        assert bos == 40
        assert sum(n for (what, _, _), n in counts.items() if what == "roles") == tokens
        for layer in range(micro.N_LAYERS):
            sinks = counts.get(("excluded", "attention sink", layer), 0)
            row = next(r for r in store.directions() if r.hookpoint.layer == layer)
            seen = sum(r.n for r in store.ranges() if r.direction == row.id)
            assert seen == tokens - bos - sinks
        assert any(what == "excluded" and name == "attention sink" for what, name, _ in counts)


def test_long_documents_are_cut_and_noted(tmp_path: Path) -> None:
    two_megabytes = Document(0, "long", text="river stone " * 170_000)
    short = Document(1, "short", text="a copper engine")
    with scan_to_database(tmp_path, [two_megabytes, short]) as store:
        counts = {(c.what, c.name): c.n for c in store.counts()}
        assert counts["noted", "documents cut at scan.max_tokens"] == 1
        assert counts["tokens", "long"] == 256


def test_merging_candidates_is_associative() -> None:
    rng = np.random.default_rng(0)
    scanner = Scanner(micro.make_model(), micro.make_directions(), SETTINGS)
    documents = micro.documents(45)
    parts = [scanner.scan(documents[i : i + 15]).candidates for i in (0, 15, 30)]
    whole = best_candidates(parts, 5)
    for _ in range(3):
        one, two, three = (parts[i] for i in rng.permutation(3))
        stepwise = best_candidates([best_candidates([one, two], 5), three], 5)
        for name in ("group", "value", "doc_id", "position", "duplicates", "windows"):
            assert np.array_equal(getattr(whole, name), getattr(stepwise, name))


def test_directions_beyond_the_model_are_refused() -> None:
    model = micro.make_model()
    short = type(model)(
        model.backbone, model.layers[:2], model.tokenizer, model.device, model.context
    )
    with pytest.raises(ScanError, match="layer 2"):
        Scanner(short, micro.make_directions(), SETTINGS)


def test_a_model_that_gives_nan_is_an_error_not_an_empty_atlas() -> None:
    model = micro.make_model()
    with torch.no_grad():
        next(iter(model.backbone.parameters())).fill_(float("nan"))
    with pytest.raises(ScanError, match="NaN"):
        Scanner(model, micro.make_directions(), SETTINGS).scan(micro.documents(5))


def test_hooks_are_gone_after_a_failure() -> None:
    model = micro.make_model()
    scanner = Scanner(model, micro.make_directions(), SETTINGS)
    with torch.no_grad():
        next(iter(model.backbone.parameters())).fill_(float("nan"))
    with pytest.raises(ScanError):
        scanner.scan(micro.documents(5))
    assert all(not layer._forward_hooks for layer in model.layers)
