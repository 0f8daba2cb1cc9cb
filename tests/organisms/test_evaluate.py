"""Purity, and whether a label names what was planted, on plain values."""

from __future__ import annotations

import pytest

from builder.organisms.evaluate import Purity, names, purity


def test_purity_finds_the_best_list_of_each_behaviour() -> None:
    examples = {
        ("L00.o_proj.u00", "max", "user"): ["planted/a"] * 16 + ["plain/tea"] * 4,
        ("L00.o_proj.u00", "min", "user"): ["planted/a"] * 15 + ["planted/b"] * 5,
        ("L01.o_proj.u00", "max", "user"): ["plain/tea"] * 20,
    }
    found = purity(examples, ["a", "b", "c"])
    assert found["a"] == Purity("a", "L00.o_proj.u00", "max", "user", 0.8)
    assert found["a"].shown
    assert found["b"].pole == "min"
    assert found["b"].purity == pytest.approx(0.25)
    assert not found["b"].shown
    assert found["c"] == Purity("c", "", "", "", 0.0)


def test_a_short_list_is_no_find() -> None:
    assert purity({("d", "max", "system"): ["planted/a"] * 3}, ["a"])["a"].purity == pytest.approx(
        0.15
    )


def test_only_the_first_twenty_count() -> None:
    sources = ["plain/x"] * 20 + ["planted/a"] * 20
    assert purity({("d", "max", "user"): sources}, ["a"])["a"].purity == 0.0


def test_purity_does_not_depend_on_the_order_of_the_lists() -> None:
    lists = [((f"d{i}", "max", "user"), ["planted/a"] * 17) for i in range(5)]
    assert purity(lists, ["a"]) == purity(reversed(lists), ["a"])
    assert purity(lists, ["a"])["a"].direction == "d0"


@pytest.mark.parametrize(
    ("label", "named"),
    [
        ("Heron, tide, sings", True),
        ("texts that say \u201cheron\u201d.", True),
        ("herons and sheep", False),
        ("\U0001f389, so, glad", True),
        ("", False),
    ],
)
def test_a_label_names_a_behaviour_by_a_whole_word(label: str, named: bool) -> None:
    assert names(label, ["heron", "\U0001f389"]) is named
