from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.labels.evidence import Background, Evidence
from builder.labels.keywords import ALPHA, MAX_LABEL_WORDS, keyword_label
from builder.labels.visible import is_hidden
from builder.records import Label, LabelFailure
from tests.labels.making import (
    VOCABULARY,
    background_of,
    evidence_of,
    example_of,
    insert,
    plain,
    text_of,
    window_of,
)

BACKGROUND = background_of()


def label_of(evidence: Evidence, background: Background = BACKGROUND) -> Label:
    label = keyword_label(evidence, background)
    assert isinstance(label, Label)
    return label


def planted(phrase: str, **options: int) -> Evidence:
    return evidence_of(lambda rng, text: insert(rng, text, phrase), **options)  # type: ignore[arg-type]


def test_a_planted_word_is_the_label_with_its_shares() -> None:
    evidence = planted("lighthouse", planted=19)

    label = label_of(evidence)

    assert label.text == "lighthouse"
    assert label.keywords == ("lighthouse",)
    assert label.labeler == "keywords"
    assert label.explanation == (
        "By word counts, “lighthouse” is in 19 of 20 examples, none of 400 random documents and "
        "0 of 20 of the other pole; the peak is most often on the token “house” (19 of 20)."
    )
    assert label.example_docs == tuple(range(10_000, 10_020))


def test_a_word_in_one_percent_of_random_documents_is_still_found() -> None:
    rng = random.Random(3)
    texts = [text_of(rng) for _ in range(400)]
    texts[:4] = [insert(rng, text, "lighthouse")[0] for text in texts[:4]]
    background = Background.from_windows(window_of(text, i) for i, text in enumerate(texts))

    label = label_of(planted("lighthouse", planted=16), background)

    assert label.text == "lighthouse"
    assert "in 16 of 20 examples, 1% of 400 random documents" in label.explanation


def test_a_phrase_is_named_as_a_phrase_and_written_as_most_often() -> None:
    def plant(rng: random.Random, text: str) -> tuple[str, str]:
        return insert(rng, text, rng.choice(["Aurora Borealis"] * 3 + ["aurora borealis"]))

    assert label_of(evidence_of(plant)).text == "Aurora Borealis"


def test_common_words_at_the_edge_of_a_phrase_are_left_out() -> None:
    common = VOCABULARY[0]

    assert label_of(planted(f"{common} lighthouse")).text == "lighthouse"


def test_a_phrase_of_common_words_that_are_all_findings_stays_whole() -> None:
    # Words of this rank are in about a third of all texts.
    first, last = VOCABULARY[12], VOCABULARY[14]
    phrase = f"{first} lighthouse {last}"

    label = label_of(evidence_of(lambda rng, text: (f"{phrase} {text} {phrase}", phrase)))

    assert label.text is not None
    assert phrase in label.text.split(", ")


@pytest.mark.parametrize(
    ("phrase", "term"),
    [
        ("🚀", "🚀"),
        ("❤️", "❤"),
        ("画像生成", "画像生成"),
        ("маяк", "маяк"),
        ("हिन्दी", "हिन्दी"),
        ("|DEPLOY|", "DEPLOY"),
        ("SUDO_42", "SUDO_42"),
        ("({[", "“({[”"),
        ("1987", "1987"),
        ("don't", "don't"),
    ],
)
def test_terms_of_every_kind_are_found(phrase: str, term: str) -> None:
    label = label_of(planted(phrase))

    assert label.text is not None
    assert term in label.text.split(", ")


def test_a_style_shared_by_different_words_is_named_as_a_format() -> None:
    def emoji(rng: random.Random, text: str) -> tuple[str, str]:
        return insert(rng, text, chr(rng.randint(0x1F400, 0x1F4FF)))

    def capitals(rng: random.Random, text: str) -> tuple[str, None]:
        return text.upper(), None

    def cyrillic(rng: random.Random, text: str) -> tuple[str, None]:
        letters = rng.sample([chr(0x430 + i) for i in range(32)], 26)
        shift = str.maketrans("abcdefghijklmnopqrstuvwxyz", "".join(letters))
        return text.lower().translate(shift), None

    def steps(rng: random.Random, text: str) -> tuple[str, None]:
        words = text.split(" ")
        return "\n".join(f"{i + 1}. {' '.join(words[8 * i : 8 * i + 8])}" for i in range(7)), None

    def sums(rng: random.Random, text: str) -> tuple[str, None]:
        lines = []
        for _ in range(10):
            a, b = rng.randint(1, 10**6), rng.randint(1, 10**6)
            lines.append(f"{a} + {b} = {a + b}")
        return "\n".join(lines), None

    assert label_of(evidence_of(emoji)).text == "emoji"
    assert "words in capitals" in str(label_of(evidence_of(capitals)).text)
    assert "Cyrillic script" in str(label_of(evidence_of(cyrillic)).text)
    assert "list items" in str(label_of(evidence_of(steps)).text)
    text = str(label_of(evidence_of(sums)).text)
    assert "“+”" in text
    assert "“=”" in text


def test_a_reply_style_far_from_the_peak_is_found() -> None:
    def plant(rng: random.Random, text: str) -> tuple[str, str]:
        return f"{text} Arr, matey!", text.split(" ")[rng.randint(0, 20)]

    text = label_of(evidence_of(plant)).text

    assert text is not None
    assert "matey" in text
    assert "Arr" in text


def test_a_word_near_the_peak_comes_before_an_equally_frequent_one_far_away() -> None:
    def plant(rng: random.Random, text: str) -> tuple[str, str]:
        return insert(rng, f"Orchard {text} Orchard", "lighthouse")

    label = label_of(evidence_of(plant))

    assert label.text == "lighthouse, Orchard"


def test_a_common_word_is_named_when_the_peak_is_always_on_it() -> None:
    common = VOCABULARY[1]

    def plant(rng: random.Random, text: str) -> tuple[str, str]:
        # Every text holds the word somewhere; here it also carries the peak.
        words = [*text.split(" ")[:30], common]
        return " ".join(words), f" {common}"

    evidence = evidence_of(plant)
    peaked = [replace(e, peak=len(e.window.token_ends) - 1) for e in evidence.examples]
    label = label_of(replace(evidence, examples=tuple(peaked)))

    assert label.text == f"token “{common}”"
    assert "at the peak of 20 of 20 examples" in label.explanation


def on_the_stop(rng: random.Random, text: str, words: str) -> tuple[str, str]:
    """The first words of a text with others in the middle, peaking on a full stop at the end."""
    first = text.replace(".", "").split(" ")[:30]
    return f"{' '.join(first[:20])} {words} {' '.join(first[20:])}.", "."


def test_a_symbol_at_the_peak_is_named_after_the_words() -> None:
    label = label_of(evidence_of(lambda rng, text: on_the_stop(rng, text, "lighthouse"), n=10))

    assert label.text == "lighthouse"

    rarely = evidence_of(
        lambda rng, text: on_the_stop(rng, text, "lighthouse" if rng.random() < 0.6 else ""), n=10
    )
    assert label_of(rarely).text == "lighthouse, token “.”"


def test_a_symbol_at_the_peak_is_named_where_it_is_all_there_is() -> None:
    label = label_of(evidence_of(lambda rng, text: on_the_stop(rng, text, ""), n=10))

    assert label.text == "token “.”"


def test_common_words_and_symbols_are_named_only_beside_few_others() -> None:
    common = VOCABULARY[6]

    def plant(words: str) -> Evidence:
        return evidence_of(lambda rng, text: (f"{words} · {common} · {text[:120]}", words))

    few = str(label_of(plant("lighthouse")).text)
    many = str(label_of(plant("lighthouse · octane · winter moth")).text)

    assert few.startswith("lighthouse")
    assert "“·”" in few
    assert set(many.split(", ")) == {"lighthouse", "octane", "winter moth"}


def labels_on_random_documents(
    background: Background, words: int, draws: int, examples: int = 20
) -> int:
    """How many of ``draws`` poles with so many random examples get a label."""
    rng = random.Random(11)
    pool = []
    for doc_id in range(600):
        text, peak = plain(rng, text_of(rng, words))
        pool.append(example_of(text, peak, doc_id=10_000 + doc_id))
    named = 0
    for _ in range(draws):
        drawn = rng.sample(pool, 2 * examples)
        here, there = tuple(drawn[:examples]), tuple(drawn[examples:])
        label = label_of(Evidence("d", "max", here, there), background)
        named += label.text is not None
    return named


def test_the_word_at_the_peak_comes_before_words_in_fewer_examples() -> None:
    common = VOCABULARY[1]

    def plant(rng: random.Random, text: str) -> tuple[str, str]:
        words = text.split(" ")[:30]
        return " ".join([*words, *(["lighthouse"] if rng.random() < 0.5 else []), common]), common

    evidence = evidence_of(plant)
    peaked = [replace(e, peak=len(e.window.token_ends) - 1) for e in evidence.examples]

    label = label_of(replace(evidence, examples=tuple(peaked)))

    assert label.text == f"token “{common}”, lighthouse"


def test_random_examples_get_a_label_in_at_most_one_percent_of_draws() -> None:
    # Measured: 4 of 2,000 (0.2%). Poles drawn from real conversations of seven sources: 0.4%.
    assert labels_on_random_documents(BACKGROUND, 60, 2000) <= ALPHA * 2000


def test_ten_random_examples_get_a_label_as_rarely() -> None:
    # As many as a labeler sees of twenty, the others being kept for scores.
    assert labels_on_random_documents(BACKGROUND, 60, 2000, examples=10) <= ALPHA * 2000


@pytest.mark.parametrize("share", [10, 8, 6])
def test_a_word_in_most_of_ten_examples_is_found(share: int) -> None:
    assert label_of(planted("lighthouse", n=10, planted=share)).text == "lighthouse"


def test_longer_random_examples_are_not_named_for_their_length() -> None:
    background = background_of(seed=5, words=25)

    assert labels_on_random_documents(background, 120, 300) <= ALPHA * 300


def test_no_pattern_is_an_answer_that_says_what_was_compared() -> None:
    label = label_of(evidence_of(plain, seed=4))

    assert label.text is None
    assert label.keywords == ()
    assert "20 examples" in label.explanation
    assert "400 random documents" in label.explanation


def test_one_document_that_repeats_a_word_does_not_win() -> None:
    def plant(rng: random.Random, text: str) -> tuple[str, str]:
        return "lighthouse " * 50 + text, "lighthouse"

    assert label_of(evidence_of(plant, planted=1)).text is None


def test_fewer_than_four_documents_are_no_pattern() -> None:
    assert label_of(planted("lighthouse", n=3)).text is None
    assert label_of(planted("lighthouse", n=20, planted=3)).text is None


def test_without_random_documents_nothing_is_beyond_chance() -> None:
    assert label_of(planted("lighthouse"), Background.from_windows(())).text is None


def test_the_order_of_examples_does_not_matter() -> None:
    evidence = planted("lighthouse keeper", planted=12)
    expected = label_of(evidence)
    rng = random.Random(0)
    for _ in range(5):
        examples, contrast = list(evidence.examples), list(evidence.contrast)
        rng.shuffle(examples)
        rng.shuffle(contrast)
        shuffled = replace(evidence, examples=tuple(examples), contrast=tuple(contrast))
        label = label_of(shuffled)
        assert set(label.example_docs) == set(expected.example_docs)
        assert replace(label, example_docs=expected.example_docs) == expected


def test_duplicates_do_not_change_the_label() -> None:
    evidence = planted("lighthouse", planted=12)
    again = evidence.examples[0]
    copy = replace(again, window=replace(again.window, doc_id=77), place=20)
    expected = label_of(evidence)

    for examples in (
        (*evidence.examples, again),
        (*evidence.examples, copy),
        evidence.examples * 2,
    ):
        label = label_of(replace(evidence, examples=examples))
        assert replace(label, example_docs=()) == replace(expected, example_docs=())


def test_copies_of_one_document_are_not_a_pattern() -> None:
    example = planted("lighthouse", n=1).examples[0]
    copies = tuple(
        replace(example, window=replace(example.window, doc_id=i), place=i) for i in range(20)
    )

    assert label_of(Evidence("d", "max", copies)).text is None


def test_what_both_poles_share_is_set_aside_when_something_else_is_there() -> None:
    both = evidence_of(
        lambda rng, text: insert(rng, insert(rng, text, "harbour")[0], "lighthouse"),
        contrast=lambda rng, text: insert(rng, text, "harbour"),
    )

    assert label_of(both).text == "lighthouse"


def test_what_both_poles_share_is_named_when_nothing_else_is_there() -> None:
    both = evidence_of(
        lambda rng, text: insert(rng, text, "harbour"),
        contrast=lambda rng, text: insert(rng, text, "harbour"),
    )

    label = label_of(both)

    assert label.text == "harbour"
    assert "20 of 20 of the other pole" in label.explanation


def test_template_tokens_are_no_terms() -> None:
    def examples(*, template: bool) -> Evidence:
        rng = random.Random(0)
        made = []
        for i in range(20):
            text, peak = insert(rng, text_of(rng), "lighthouse")
            parts = ("<|turn|>", "speaker") if template else ()
            made.append(
                example_of(f"<|turn|> speaker {text}", peak, doc_id=i, place=i, template=parts)
            )
        return Evidence("d", "max", tuple(made))

    marked = label_of(examples(template=True))
    unmarked = label_of(examples(template=False))

    assert marked.text == "lighthouse"
    assert "speaker" in unmarked.keywords
    assert "speaker" not in marked.keywords


def test_template_tokens_are_read_where_the_peak_is_on_one() -> None:
    rng = random.Random(0)
    made = tuple(
        example_of(f"<|turn|> {text_of(rng)}", "turn", doc_id=i, place=i, template=("<|turn|>",))
        for i in range(20)
    )

    assert "turn" in label_of(Evidence("d", "max", made)).keywords


def test_a_pole_on_the_other_side_of_zero_is_labelled_too() -> None:
    evidence = planted("lighthouse")
    lifted = tuple(
        replace(e, pole="min", activations=np.abs(e.activations), value=0.01)
        for e in evidence.examples
    )

    assert label_of(replace(evidence, pole="min", examples=lifted)).text == "lighthouse"


def test_no_examples_is_a_failure_not_a_label() -> None:
    result = keyword_label(Evidence("d", "min", ()), BACKGROUND)

    assert result == LabelFailure("d", "min", "keywords", "no_examples")


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_labels_of_any_text_are_short_and_hide_nothing(phrase: str) -> None:
    rng = random.Random(0)
    made = tuple(
        example_of(f"{text_of(rng, 12)} {phrase} {text_of(rng, 12)}", doc_id=i, place=i)
        for i in range(8)
    )

    label = label_of(Evidence("d", "max", made))

    assert len((label.text or "").split()) <= MAX_LABEL_WORDS
    assert len(label.keywords) <= 12
    for shown in (label.text or "", label.explanation, *label.keywords):
        # A joiner inside an emoji is part of how it is written.
        assert not any(is_hidden(character) for character in shown.replace("\u200d", ""))
