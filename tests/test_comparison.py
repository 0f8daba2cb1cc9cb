"""Runs compared as their folders are: shares, stages, controls, the command that prints them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from builder import cli
from builder.comparison import compare_runs
from builder.organisms import shipped_pairs
from builder.pages.compare.groups import Group, match_level
from builder.pages.compare.stages import lineages, steps
from tests.lined import hub, run_of


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """Three stages of one base, by hand.

    From the first to the second axes 0, 1 and 2 stay, 1 turned round and 2 turned by a cosine of
    0.7; 3 and 4 vanish and 5 and 6 are born. From the second to the third 0 and 5 stay, 1 is turned
    round again; 2 and 6 vanish and 7 is born.
    """
    base = hub("base")
    return [
        run_of(tmp_path / "sft", [0, 1, 2, 3, 4], base, hub("sft"), controls=40, stage=1),
        run_of(
            tmp_path / "dpo", [0, 1, 2, 5, 6], base, hub("dpo"), turned={1: -1.0, 2: 0.7}, stage=2
        ),
        run_of(tmp_path / "rl", [7, 1, 5, 0], base, hub("rl"), stage=3),
    ]


def group_of(runs: list[Path]) -> Group:
    (group,) = compare_runs(runs).groups
    return group


def test_what_is_kept_rotated_vanished_and_born_along_a_chain_is_what_was_planted(
    chain: list[Path],
) -> None:
    group = group_of(chain)
    (line,) = group.lines
    first, second = steps(group, line)
    assert (first.kept, first.rotated, first.beside, first.beside_new) == (2, 1, 0, 0)
    assert [key[0] for key in first.vanished] == ["L01.o_proj.u03", "L00.o_proj.u04"]
    assert [key[0] for key in first.born] == ["L01.o_proj.u03", "L00.o_proj.u04"]
    assert (second.kept, second.rotated) == (3, 0)
    assert (len(second.vanished), len(second.born)) == (2, 1)


def test_directions_are_followed_with_their_cosines_and_turns(chain: list[Path]) -> None:
    group = group_of(chain)
    found = lineages(steps(group, group.lines[0]))
    told = [
        (item.first, tuple(key[0][-3:] for key in item.keys), item.cosines, item.flips)
        for item in found
    ]
    assert sorted(told[:2]) == [
        (0, ("u00", "u00", "u03"), (1.0, 1.0), (False, False, False)),
        (0, ("u01", "u01", "u01"), (-1.0, -1.0), (False, True, False)),
    ]
    assert told[2][:2] == (0, ("u02", "u02"))
    assert told[2][2] == pytest.approx((0.7,), abs=1e-6)
    assert told[3] == (1, ("u03", "u02"), (1.0,), (False, False))
    assert len(told) == 4


def test_shares_count_directions_and_energy(chain: list[Path]) -> None:
    pair = group_of(chain).pair(chain[0], chain[1])
    assert pair.share(pair.one) == pytest.approx(3 / 5)
    sizes = [1.0, 0.81, 0.64, 0.49, 0.36]
    assert pair.one.energy == pytest.approx(sum(sizes[:3]) / sum(sizes), rel=1e-6)
    assert pair.turned().one == pair.two


def test_random_controls_match_nothing_and_the_pair_says_so(chain: list[Path]) -> None:
    pair = group_of(chain).pair(chain[0], chain[1])
    assert pair.control_matches(pair.one) == {"random": (0, 40)}
    assert pair.control_matches(pair.two) == {}
    assert 0 < max(pair.one.controls["random"]) < pair.level


def test_results_do_not_depend_on_the_order_of_the_runs(chain: list[Path]) -> None:
    wanted = group_of(chain)
    for order in itertools.permutations(chain):
        group = group_of(list(order))
        assert group.lines == wanted.lines
        for one, two in itertools.permutations(chain, 2):
            assert set(group.pair(one, two).matches) == set(wanted.pair(one, two).matches)
            assert group.pair(one, two).one == wanted.pair(one, two).one


def test_several_directions_near_one_are_matched_once_and_counted_beside_it(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", [0, 1], hub("base"), hub("one"))
    two = run_of(tmp_path / "two", [0, 0, 2], hub("base"), hub("two"), turned={2: 0.1})
    pair = group_of([one, two]).pairs[0]
    assert len(pair.matches) == 1
    assert (pair.beside(pair.one), pair.beside(pair.two)) == (0, 1)
    assert (len(pair.only(pair.one)), len(pair.only(pair.two))) == (1, 1)


def test_the_level_of_a_match_is_above_that_of_a_nearest_neighbour() -> None:
    assert match_level(1000, 1000, 64) > 0.5
    assert match_level(1000, 1000, 4096) == 0.3
    assert match_level(10**6, 10**6, 2) == 1.0
    assert match_level(0, 10, 64) == 1.0


def test_the_command_prints_the_matrix_and_the_stages(
    chain: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *map(str, chain)]) == 0
    said = capsys.readouterr().out
    assert "60% (74%)" in said
    assert "sft > dpo: 2 kept, 1 rotated, 0 near a matched one, 2 vanished, 2 born" in said
    assert "controls of sft that match: 0 of 40 random" in said
    assert "2 of 4 followed through all stages" in said


def test_the_command_gives_every_match_as_json(
    chain: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", "--json", *map(str, chain[:2])]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["runs"] == ["sft", "dpo"]
    (pair,) = group["pairs"]
    assert {match["one"][0]: round(match["cosine"], 3) for match in pair["matches"]} == {
        "L00.o_proj.u00": 1.0,
        "L01.o_proj.u01": -1.0,
        "L00.o_proj.u02": 0.7,
    }
    assert group["matrix"][0][0] is None
    assert group["lines"][0]["steps"][0]["born"] == 2


def test_runs_that_have_nothing_to_do_with_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run_of(tmp_path / n, [0], hub(f"base of {n}"), hub(n)) for n in ("one", "two")]
    assert cli.main(["compare", *map(str, runs)]) == 2
    assert "no two of these runs can be compared" in capsys.readouterr().err
    assert cli.main(["compare", str(runs[0]), str(tmp_path / "none")]) == 2
    assert "none: no such run folder" in capsys.readouterr().err


def test_a_damaged_file_is_said_and_the_rest_compared(
    chain: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (chain[2] / "directions.safetensors").write_bytes(b"no such thing")
    assert cli.main(["compare", *map(str, chain)]) == 0
    said = capsys.readouterr()
    assert "rl: is compared with no model" in said.err
    assert "sft > dpo" in said.out


def test_directions_alone_are_enough_to_compare_tunes_of_a_local_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = {pair.kind: pair for pair in shipped_pairs() if pair.family == "qwen2"}
    for kind, pair in pairs.items():
        arguments = ["--tuned", str(pair.tuned), "--base", str(pair.base)]
        assert cli.main(["directions", *arguments, "--out", str(tmp_path / kind)]) == 0
    capsys.readouterr()
    assert cli.main(["compare", "--json", *(str(tmp_path / kind) for kind in sorted(pairs))]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["runs"] == ["null", "tuned"]
    # What was planted in one is not in the other, which nothing was planted in.
    assert group["pairs"][0]["matches"] == []
