from __future__ import annotations

import pytest

from builder.labels.agreement import agreement


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["medical advice", "Medical advice"], 1.0),
        (["medical opinion text", "medical opinions given"], 2 / 3),
        (["the colour of birds", "birds and colours"], 1.0),
        (["legal texts", "cooking"], 0.0),
        ([None, None], 1.0),
        ([None, "cooking"], 0.0),
        (["a b c", "a b c", "x y z"], 1 / 3),
        (["医疗建议", "医疗帮助"], 0.5),
        (["!!", "!!"], 1.0),
    ],
)
def test_agreement_is_the_mean_share_of_words_in_common(
    texts: list[str | None], expected: float
) -> None:
    assert agreement(texts) == pytest.approx(expected)
    assert agreement(texts[::-1]) == pytest.approx(expected)


def test_one_label_agrees_with_nobody() -> None:
    assert agreement(["cooking"]) is None
    assert agreement([]) is None
