"""Which runs belong together, and in which order: by commits, digests and numbers of stages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from builder.comparison import compare_runs
from builder.execute import write_json
from builder.kinship import Identity, connected, lines_of
from builder.records import ModelRef
from tests.lined import hub, run_of


def identity(base: str, tuned: str | None = None, width: int = 8) -> Identity:
    return Identity((base,), (tuned,) if tuned else None, width, 2)


def line_names(
    members: Sequence[tuple[str, Identity, int | None]],
) -> tuple[set[tuple[str, ...]], tuple[str, ...]]:
    lines, faults = lines_of([(Path(name), held, stage) for name, held, stage in members])
    return {tuple(run.name for run in line.runs) for line in lines}, faults


def test_runs_of_one_base_or_of_one_line_belong_together_whatever_their_order() -> None:
    identities = {
        "sft": identity("base", "sft"),
        "dpo": identity("sft", "dpo"),
        "other": identity("base"),
        "wide": identity("base", "sft", width=16),
        "alone": identity("elsewhere", "there"),
    }
    for order in itertools.permutations(identities):
        groups = connected([identities[name] for name in order])
        assert [{order[at] for at in group} for group in groups] == [{"sft", "dpo", "other"}]
        assert groups == [sorted(group) for group in groups]


def test_two_tunes_whose_weights_nobody_knows_are_not_taken_for_one() -> None:
    assert connected([identity("one"), identity("two")]) == []


def test_a_line_follows_from_weights_and_forks_into_two() -> None:
    members = [
        ("rl", identity("dpo", "rl"), None),
        ("sft", identity("base", "sft"), None),
        ("dpo", identity("sft", "dpo"), None),
        ("kto", identity("sft", "kto"), None),
        ("beside", identity("base"), None),
    ]
    for order in itertools.permutations(members):
        found, faults = line_names(list(order))
        assert found == {("sft", "dpo", "rl"), ("sft", "kto")}
        assert faults == ()


def test_weights_that_lead_round_in_a_circle_are_no_line() -> None:
    circle = [("a", identity("x", "y"), None), ("b", identity("y", "x"), None)]
    assert line_names(circle) == (set(), ())
    tail = [*circle, ("c", identity("y", "z"), None)]
    assert line_names(tail)[1] == ()


def test_numbers_of_stages_decide_over_weights() -> None:
    members = [
        ("a", identity("base", "a"), 3),
        ("b", identity("a", "b"), 1),
        ("c", identity("base", "c"), None),
    ]
    assert line_names(members) == ({("b", "a")}, ())
    lines, _ = lines_of([(Path(name), held, stage) for name, held, stage in members])
    assert (lines[0].known_by, lines[0].one_base) == ("setting", False)


def test_two_runs_of_one_stage_have_no_order_and_that_is_said() -> None:
    members = [("a", identity("base"), 1), ("b", identity("base"), 2), ("c", identity("base"), 2)]
    found, (fault,) = line_names(members)
    assert found == set()
    assert "b and c all have model.stage = 2" in fault
    assert "give each its own" in fault


@pytest.mark.parametrize("digest", ["same", "other"])
def test_a_local_tuned_model_is_known_by_the_digests_of_its_weights(
    tmp_path: Path, digest: str
) -> None:
    sft = run_of(tmp_path / "sft", [0, 1], hub("base"), ModelRef("/models/sft"))
    dpo = run_of(tmp_path / "dpo", [0, 2], ModelRef("/copies/sft"), ModelRef("/models/dpo"))
    for run, files in (
        (sft, {"/models/sft/model.safetensors": [1, 1, "same"]}),
        (dpo, {"/copies/sft/model.safetensors": [1, 1, digest]}),
    ):
        (run / "stages").mkdir()
        write_json(run / "stages" / "models.json", files)
    found = compare_runs([dpo, sft])
    lines = [tuple(run.name for run in line.runs) for g in found.groups for line in g.lines]
    assert lines == ([("sft", "dpo")] if digest == "same" else [])


def test_a_recipe_numbers_the_stages(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / name, [0, at], hub("base"), hub(name), stage=stage)
        for at, (name, stage) in enumerate((("late", 7), ("early", 2)), 1)
    ]
    (group,) = compare_runs(runs).groups
    (line,) = group.lines
    assert [run.name for run in line.runs] == ["early", "late"]
    assert (line.known_by, line.one_base) == ("setting", True)
