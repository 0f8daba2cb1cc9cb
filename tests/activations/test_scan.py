"""The scan of a shard against a loop that takes one document, direction and token at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from builder.activations.candidates import Candidates, best_candidates, standing
from builder.activations.corpus import Document
from builder.activations.scan import Scanner, level
from builder.activations.sums import Sums, gathered
from builder.errors import ScanError
from builder.records import CONTENT_ROLES, HISTOGRAM_BINS, LEVELS, MODELS, ROLES
from tests import micro
from tests.activations.scanning import (
    POLE_SIGNS,
    SETTINGS,
    Tables,
    best_by_loop,
    look,
    marked,
    scan,
    shown,
    tables,
    tokenizer,
)
from tests.readings import stand

#: Float32 results may differ by the order of additions inside the model.
TOLERANCE = 3e-5
DIRECTIONS = micro.make_directions().directions


def test_examples_equal_a_loop_over_documents() -> None:
    documents = marked(micro.documents(60))
    lists = shown(tables(scan(documents)))
    wanted = best_by_loop(look(documents), SETTINGS.top)
    assert lists.keys() == wanted.keys()
    compared = 0
    for key, rows in lists.items():
        assert [row["doc_id"] for row in rows] == [w["doc_id"] for w in wanted[key]]
        for row, held in zip(rows, wanted[key], strict=True):
            one, position = held["seen"], held["at"]
            assert row["value"] == pytest.approx(held["value"], abs=TOLERANCE)
            assert row["position"] == position
            assert row["repeats"] == held["repeats"]
            assert row["start"] == max(position - SETTINGS.window, 0)
            window = one.values[key[0]][row["start"] : position + SETTINGS.window + 1]
            assert np.asarray(row["activations"]) / 32767 == pytest.approx(window, abs=1e-4)
            assert row["base_activations"] is None
            compared += 1
    assert compared > 500


def test_histograms_moments_and_ranges_equal_a_loop() -> None:
    documents = marked(micro.documents(60))
    found = tables(scan(documents))
    seen = look(documents)
    for row in found["stats"]:
        layer = DIRECTIONS[row["direction"]].hookpoint.layer
        values = np.concatenate(
            [
                one.values[row["direction"]][one.of(row["direction"], layer, row["role"])]
                for one in seen
            ]
        )
        assert row["model"] == 0
        assert row["n"] == len(values) == sum(row["counts"])
        counts = np.histogram(values, bins=HISTOGRAM_BINS, range=(-1, 1))[0]
        # A value on the edge of two bins may fall on either side.
        assert np.abs(np.asarray(row["counts"]) - counts).sum() <= 2
        assert row["total"] == pytest.approx(values.sum(), abs=1e-3)
        assert row["squares"] == pytest.approx((values**2).sum(), abs=1e-3)
        assert row["minimum"] == pytest.approx(values.min(), abs=TOLERANCE)
        assert row["maximum"] == pytest.approx(values.max(), abs=TOLERANCE)


def content_extremes(documents: list[Document]) -> dict[tuple[int, int], dict[int, float]]:
    """By direction and pole: each document's most extreme content token."""
    best: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for one in look(documents):
        for index, direction in enumerate(DIRECTIONS):
            places = [
                t
                for role in range(len(CONTENT_ROLES))
                for t in one.of(index, direction.hookpoint.layer, role)
            ]
            for pole, sign in POLE_SIGNS:
                value = max(sign * one.values[index][places])
                best[index, pole][one.item.document.doc_id] = sign * value
    return best


def test_the_tail_holds_the_most_extreme_documents_and_the_levels_their_extremes() -> None:
    documents = marked(micro.documents(60))
    by_id = {item.doc_id: item for item in documents}
    found = tables(scan(documents))
    wanted = content_extremes(documents)
    tails: dict[Any, list[Any]] = defaultdict(list)
    for row in found["tail"]:
        tails[row["direction"], row["pole"]].append(row)
        assert row["source"] == by_id[row["doc_id"]].source
        assert row["cluster"] == by_id[row["doc_id"]].cluster
    assert tails.keys() == wanted.keys()
    for (index, pole), values in wanted.items():
        sign = 1 - 2 * pole
        ranked = sorted(values, key=lambda doc_id: (-sign * values[doc_id], doc_id))
        assert [row["doc_id"] for row in tails[index, pole]] == ranked[: SETTINGS.tail]
    levels = {(row["direction"], row["level"]): row for row in found["levels"]}
    for index in range(len(DIRECTIONS)):
        for number in range(LEVELS):
            inside = [item.doc_id for item in documents if level(item.priority) == number]
            if inside:
                row = levels[index, number]
                for pole, name, pick in ((0, "maximum", max), (1, "minimum", min)):
                    value = pick(wanted[index, pole][doc_id] for doc_id in inside)
                    assert row[name] == pytest.approx(value, abs=TOLERANCE)


def test_half_of_the_documents_are_in_level_0_a_quarter_in_level_1_and_so_on() -> None:
    levels = Counter(level(priority) for priority in range(1, 2**14))
    for number in range(LEVELS - 1):
        assert levels[number] == 2 ** (13 - number)
    assert level(0) == LEVELS - 1


def test_samples_are_windows_of_random_documents_at_all_directions() -> None:
    documents = marked(micro.documents(60))
    seen = {one.item.document.doc_id: one for one in look(documents)}
    found = tables(scan(documents))["samples"]
    assert {row["doc_id"] for row in found} == {d.doc_id for d in documents if d.sampled}
    assert len(found) > 3
    for row in found:
        one = seen[row["doc_id"]]
        assert row["length"] == min(2 * SETTINGS.window + 1, len(one.item.ids))
        window = slice(row["start"], row["start"] + row["length"])
        values = np.stack([one.values[index][window] for index in range(len(DIRECTIONS))])
        whole = np.asarray(row["activations"]).reshape(len(DIRECTIONS), row["length"])
        assert whole / 32767 == pytest.approx(values, abs=1e-4)


def test_the_base_is_measured_at_the_same_tokens() -> None:
    documents = marked(micro.documents(40))
    base = micro.make_model(seed=1)
    found = tables(scan(documents, base=base))
    seen = {one.item.document.doc_id: one for one in look(documents)}
    base_seen = {one.item.document.doc_id: one for one in look(documents, base)}
    for row in found["examples"]:
        values = base_seen[row["doc_id"]].values[row["direction"]]
        window = values[row["start"] : row["start"] + len(row["activations"])]
        assert np.asarray(row["base_activations"]) / 32767 == pytest.approx(window, abs=1e-4)
    models = Counter(MODELS[row["model"]] for row in found["stats"])
    assert models["tuned"] == models["base"] == models["difference"] > 0
    for row in found["stats"]:
        index, layer = row["direction"], DIRECTIONS[row["direction"]].hookpoint.layer
        parts = []
        for doc_id, one in seen.items():
            other = base_seen[doc_id]
            tuned, from_base = one.values[index], other.values[index]
            of = {
                "tuned": (one.usable[layer], tuned),
                "base": (other.usable[layer], from_base),
                "difference": (one.usable[layer] & other.usable[layer], tuned - from_base),
            }
            usable, values = of[MODELS[row["model"]]]
            parts.append(values[usable & (one.item.roles == row["role"])])
        values = np.concatenate(parts)
        assert row["n"] == len(values)
        assert row["total"] == pytest.approx(values.sum(), abs=1e-3)
        assert row["maximum"] == pytest.approx(values.max(), abs=TOLERANCE)
        assert row["minimum"] == pytest.approx(values.min(), abs=TOLERANCE)
    for row in found["samples"]:
        assert len(row["base_activations"]) == len(row["activations"])


def without_floats(found: Tables) -> Tables:
    exact = {
        "examples": (
            "direction",
            "role",
            "pole",
            "doc_id",
            "cluster",
            "prefix",
            "start",
        ),
        "tail": ("direction", "pole", "doc_id", "cluster", "source"),
        "documents": ("doc_id", "piece", "first", "source", "text", "token_ends", "roles"),
        "stats": ("direction", "role", "model", "n"),
        "levels": ("direction", "level"),
        "samples": ("priority", "doc_id", "cluster", "piece", "start", "length"),
        "counts": ("what", "name", "layer", "n"),
    }
    return {name: [{k: row[k] for k in exact[name]} for row in found[name]] for name in found}


@pytest.mark.parametrize(
    ("batch_tokens", "padding"), [(64, "right"), (5000, "right"), (600, "left"), (5000, "left")]
)
def test_the_result_does_not_depend_on_batches_or_padding(batch_tokens: int, padding: str) -> None:
    documents = marked(micro.documents(60))
    settings = SETTINGS.model_copy(update={"batch_tokens": batch_tokens})
    one, two = tables(scan(documents)), tables(scan(documents, settings, padding=padding))
    assert without_floats(one) == without_floats(two)
    for name, column in (("examples", "value"), ("tail", "value"), ("levels", "maximum")):
        values = [[row[column] for row in found[name]] for found in (one, two)]
        assert values[0] == pytest.approx(values[1], abs=TOLERANCE)
    for a, b in zip(one["stats"], two["stats"], strict=True):
        assert np.abs(np.asarray(a["counts"]) - np.asarray(b["counts"])).sum() <= 2
        assert (a["total"], a["squares"]) == pytest.approx((b["total"], b["squares"]), abs=1e-3)


def test_documents_that_begin_alike_are_one_reading() -> None:
    documents = marked(
        [Document(n, "a", text=f"silver bridge {'stone ' * n}harbour") for n in range(8)]
    )
    found = shown(tables(scan(documents)))
    wanted = best_by_loop(look(documents), SETTINGS.top)
    alike = 0
    for key, rows in found.items():
        for name in ("doc_id", "repeats"):
            assert [row[name] for row in rows] == [w[name] for w in wanted[key]]
        alike += sum(row["repeats"] > 0 for row in rows)
    assert alike > 10


def test_pieces_of_long_documents_equal_a_loop_and_stand_once_a_document() -> None:
    documents = marked(micro.documents(30))
    long: dict[str, Any] = {"max_tokens": 48, "long_documents": "split", "overlap": 12}
    found = tables(scan(documents, **long))
    seen = look(documents, **long)
    assert len(seen) > 60
    wanted = best_by_loop(seen, SETTINGS.top)
    lists = shown(found)
    assert lists.keys() == wanted.keys()
    further = 0
    for key, rows in lists.items():
        assert [row["doc_id"] for row in rows] == [w["doc_id"] for w in wanted[key]]
        for row, held in zip(rows, wanted[key], strict=True):
            one, at = held["seen"], held["at"]
            assert row["piece"] == one.item.piece
            assert row["position"] == one.item.first + at
            assert row["start"] == one.item.first + max(at - SETTINGS.window, 0)
            further += row["piece"] > 0
    assert further > 20
    counts = {(row["what"], row["name"]): row["n"] for row in found["counts"]}
    tokens = sum(len(one.item.ids) - one.item.context for one in seen)
    assert sum(n for (what, _), n in counts.items() if what == "tokens") == tokens
    assert sum(n for (what, _), n in counts.items() if what == "documents") == 30
    samples = {row["doc_id"]: row for row in found["samples"]}
    assert len(samples) == sum(item.sampled for item in documents)
    by_piece = {(one.item.document.doc_id, one.item.piece): one.item for one in seen}
    for row in samples.values():
        item = by_piece[row["doc_id"], row["piece"]]
        assert item.first + item.context <= row["start"]
        assert row["start"] + row["length"] <= item.first + len(item.ids)


def test_near_duplicates_are_represented_by_the_most_extreme() -> None:
    documents = marked(micro.documents(30))
    alike = [
        Document(d.doc_id, d.source, d.messages, d.text, cluster=d.doc_id % 7, priority=d.priority)
        for d in documents
    ]
    found = shown(tables(scan(alike)))
    wanted = best_by_loop(look(alike), SETTINGS.top)
    for key, kept in wanted.items():
        assert [row["doc_id"] for row in found[key]] == [w["doc_id"] for w in kept]
        assert len({row["cluster"] for row in found[key]}) == len(found[key])


def test_the_beginning_of_sequence_and_sinks_are_left_out_and_counted() -> None:
    documents = marked(micro.documents(40))
    settings = SETTINGS.model_copy(update={"sink_factor": 1.2})
    found = tables(scan(documents, settings), settings)
    counts = {(row["what"], row["name"], row["layer"]): row["n"] for row in found["counts"]}
    tokens = sum(n for (what, _, _), n in counts.items() if what == "tokens")
    bos = counts["excluded", "beginning of sequence", None]
    assert bos == 40
    assert sum(n for (what, _, _), n in counts.items() if what == "roles") == tokens
    assert sum(n for (what, _, _), n in counts.items() if what == "levels") == 40
    for layer in range(micro.N_LAYERS):
        sinks = counts.get(("excluded", "attention sink", layer), 0)
        index = next(i for i, d in enumerate(DIRECTIONS) if d.hookpoint.layer == layer)
        seen = sum(row["n"] for row in found["stats"] if row["direction"] == index)
        assert seen == tokens - bos - sinks
    assert any(what == "excluded" and name == "attention sink" for what, name, _ in counts)


def in_rows(found: Candidates) -> list[tuple[Any, ...]]:
    columns = ("group", "prefix", "cluster", "doc_id", "piece", "position")
    return list(zip(*(getattr(found, name).tolist() for name in columns), strict=True))


def made_up(rng: np.random.Generator, n: int) -> Candidates:
    """Rows of two lists, whose documents share readings and clusters in all ways."""
    prefix = rng.integers(n // 3, size=n)
    values = 0.9 - 0.01 * rng.permutation(n // 3)[prefix] + 1e-7 * rng.random(n)
    return Candidates(
        group=rng.integers(2, size=n),
        value=values.astype(np.float32),
        doc_id=rng.permutation(n),
        piece=np.zeros(n, dtype=np.int32),
        cluster=rng.integers(n // 2, size=n).astype(np.uint64),
        prefix=prefix.astype(np.uint64),
        position=np.zeros(n, dtype=np.int32),
        windows=np.zeros((n, 1, 3), dtype=np.int16),
    )


def crossed(top: int) -> tuple[Candidates, Candidates]:
    """Parts where each document of the first takes a reading of the second and the cluster of the
    next one, so that of every two readings only one has something that stands for it.
    """
    first, second = np.arange(1, 2 * top - 2, 2), np.arange(1, 2 * top)

    def part(readings: Any, clusters: Any, doc_id: Any) -> Candidates:
        n = len(readings)
        return Candidates(
            group=np.zeros(n, dtype=np.int64),
            value=(0.9 - 0.01 * readings).astype(np.float32),
            doc_id=np.asarray(doc_id),
            piece=np.zeros(n, dtype=np.int32),
            cluster=np.asarray(clusters, dtype=np.uint64),
            prefix=readings.astype(np.uint64),
            position=np.zeros(n, dtype=np.int32),
            windows=np.zeros((n, 1, 3), dtype=np.int16),
        )

    return (
        part(first, first + 1, np.arange(len(first))),
        part(second, second, 100 + np.arange(len(second))),
    )


@pytest.mark.parametrize("top", [2, 4, 7])
def test_parts_that_take_each_others_readings_and_clusters_merge_to_the_whole(top: int) -> None:
    parts = crossed(top)
    whole = best_candidates(list(parts), top)
    merged = best_candidates([best_candidates([part], top) for part in parts], top)
    shown = [
        standing(((row, row[1], row[2]) for row in in_rows(found)), top)
        for found in (whole, merged)
    ]
    assert len(shown[0]) == top
    assert shown[0] == shown[1]


def test_the_spread_of_a_direction_far_from_zero_is_not_lost_to_rounding() -> None:
    torch.manual_seed(0)
    sums, values = Sums(3, torch.device("cpu")), []
    means = torch.tensor([0.9, -0.5, 0.0])
    for _ in range(20):
        activation = means + 3e-4 * torch.randn(4096, 3)
        values.append(activation.double())
        spare, bins = torch.empty(4096, 3), torch.empty(4096, 3, dtype=torch.int32)
        sums.add(activation, torch.zeros(4096, dtype=torch.long), spare, bins)
    stats = gathered([{0: sums}], {0: np.arange(3)}, 3)
    mean = stats.total[0, :, 0] / stats.n[0, :, 0]
    std = np.sqrt(stats.squares[0, :, 0] / stats.n[0, :, 0] - mean**2)
    every = torch.cat(values)
    np.testing.assert_allclose(mean, every.mean(dim=0), atol=1e-7)
    np.testing.assert_allclose(std, every.std(dim=0, correction=0), rtol=1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_lists_of_parts_merge_to_the_lists_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole, top = made_up(rng, 120), 6
    signs = 1.0 - 2.0 * (whole.group % 2)
    whole.value = (whole.value * signs).astype(np.float32)

    def shown(found: Candidates) -> list[list[tuple[Any, int]]]:
        return [
            standing(((row, row[1], row[2]) for row in in_rows(found) if row[0] == group), top)
            for group in np.unique(found.group)
        ]

    wanted = shown(best_candidates([whole], top))
    for group, rows in zip(np.unique(whole.group), wanted, strict=True):
        columns = ("group", "prefix", "cluster", "doc_id", "piece", "value")
        named = [
            dict(zip(columns, values, strict=True))
            for values in zip(*(getattr(whole, c).tolist() for c in columns), strict=True)
        ]
        by_rule = stand([{**r, "pole": int(group) % 2} for r in named if r["group"] == group], top)
        assert [(row[3], repeats) for row, repeats in rows] == [
            (row["doc_id"], row["repeats"]) for row in by_rule
        ]
    parts = np.array_split(rng.permutation(len(whole)), 5)
    found = [best_candidates([whole.at(part)], top) for part in parts]
    assert shown(best_candidates(found, top)) == wanted
    stepwise = found[3]
    for number in (1, 4, 0, 2, 4):
        stepwise = best_candidates([found[number], stepwise], top)
    assert shown(stepwise) == wanted


def test_layers_above_the_last_direction_are_not_run_and_are_there_again_after() -> None:
    model = micro.make_model()
    ran: list[int] = []
    for number, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda _m, _i, _o, number=number: ran.append(number))
    directions = micro.make_directions()
    below = type(directions)(
        directions.base,
        directions.tuned,
        directions.method,
        directions.d_model,
        directions.n_layers,
        tuple(d for d in directions.directions if d.hookpoint.layer < 2),
    )
    documents = marked(micro.documents(5))
    Scanner(model, below, SETTINGS).scan(tokenizer(model).tokenize(documents))
    assert set(ran) == {0, 1}
    assert len(model.backbone.layers) == micro.N_LAYERS  # type: ignore[arg-type]


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
        scan(marked(micro.documents(5)), model=model)
    assert all(not layer._forward_hooks for layer in model.layers)


def test_roles_without_tokens_have_no_rows() -> None:
    found = tables(scan(marked([Document(0, "a", text="a copper engine")])))
    roles = {ROLES[row["role"]] for row in found["stats"]}
    assert roles == {"text"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cosines_of_a_half_precision_model_are_float32(dtype: torch.dtype) -> None:
    model = micro.make_model()
    model.backbone.to(dtype)
    documents = marked(micro.documents(20))
    streams: list[torch.Tensor] = []
    model.layers[2].register_forward_hook(lambda _m, _i, out: streams.append(out.double()))
    settings = SETTINGS.model_copy(update={"batch_tokens": 1})
    found = tables(scan(documents, settings, model=model))
    highest: defaultdict[int, float] = defaultdict(lambda: -2.0)
    for stream in streams:
        values = torch.nn.functional.normalize(stream[0], dim=-1).numpy()
        for index, direction in enumerate(DIRECTIONS):
            if direction.hookpoint.layer == 2:
                # The first token is BOS here or there; it is far from extreme.
                highest[index] = max(highest[index], float((values @ direction.vector)[1:].max()))
    for index, value in highest.items():
        kept = [row["maximum"] for row in found["stats"] if row["direction"] == index]
        assert max(kept) == pytest.approx(value, abs=1e-6)
