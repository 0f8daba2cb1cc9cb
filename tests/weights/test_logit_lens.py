from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from builder.errors import CheckpointError
from builder.weights import logit_lens
from builder.weights.checkpoint import Checkpoint
from builder.weights.infer import find_layout
from builder.weights.layout import decoder_layers, match
from builder.weights.logit_lens import Head, find_head, strongest_tokens
from builder.weights.token_text import TokenTexts, readable_bytes
from tests.weights import pico


def _head(folder: Path) -> Head:
    checkpoint = Checkpoint.open(str(folder))
    head = find_head(checkpoint, match(find_layout(checkpoint.config), checkpoint))
    assert isinstance(head, Head), head
    return head


@pytest.mark.parametrize("model_type", [*pico.WHOLE, "cohere", "nanochat", "opt"])
def test_lens_gives_the_logits_of_a_residual_stream_along_the_direction(
    model_type: str, tmp_path: Path
) -> None:
    made = pico.save(model_type, tmp_path)
    u = pico.unit(pico.D_MODEL, 3)

    def replaced(_: object, __: object, out: Any) -> Any:
        stream = torch.zeros_like(out[0] if isinstance(out, tuple) else out) + 1e3 * u
        return (stream, *out[1:]) if isinstance(out, tuple) else stream

    def logits_with_stream() -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = made(torch.tensor([[5, 6, 7]])).logits[0, -1]
        return result

    decoder_layers(made)[-1].register_forward_hook(replaced)
    logits = logits_with_stream()
    # Biases of the norm and of the head are the same for every direction: they cancel in u - (-u).
    u = -u
    logits = (logits - logits_with_stream()) / 2
    head = _head(tmp_path)
    found = head.logits(head.normed(-u[None]), 0, head.vocabulary)[0]
    if model_type == "nanochat":  # it caps its logits, which leaves their order
        assert torch.equal(found.argsort(), logits.argsort())
    else:
        np.testing.assert_allclose(found, logits, atol=2e-3 * float(logits.abs().max()))


@pytest.mark.parametrize("tied", [True, False])
def test_tied_unembedding_is_the_embedding(tied: bool, tmp_path: Path) -> None:
    made = pico.save("llama", tmp_path, tie_word_embeddings=tied)
    head = _head(tmp_path)
    assert head.name == ("model.embed_tokens.weight" if tied else "lm_head.weight")
    assert torch.equal(head.checkpoint.tensor(head.name), made.lm_head.weight)


@pytest.mark.parametrize("slice_entries", [1, 200, 1000, 10**9])
def test_strongest_tokens_do_not_depend_on_the_slices_of_the_vocabulary(
    slice_entries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pico.save("llama", tmp_path)
    head = _head(tmp_path)
    vectors = np.stack([pico.unit(pico.D_MODEL, seed).numpy() for seed in range(7)])
    monkeypatch.setattr(logit_lens, "_SLICE_ENTRIES", slice_entries)
    promoted, suppressed = strongest_tokens(head, vectors, 5, 90)
    dense = head.logits(head.normed(torch.from_numpy(vectors)), 0, 90)
    for row, up, down in zip(dense, promoted, suppressed, strict=True):
        order = row.argsort(descending=True).tolist()
        assert [number for number, _ in up] == order[:5]
        assert [number for number, _ in down] == order[::-1][:5]
        assert [value for _, value in up] == pytest.approx(row[order[:5]].tolist(), rel=1e-4)
        assert [value for _, value in down] == pytest.approx(
            row[order[::-1][:5]].tolist(), rel=1e-4
        )


def test_rows_that_pad_the_unembedding_are_left_out(tmp_path: Path) -> None:
    pico.save("llama", tmp_path)
    head = _head(tmp_path)
    promoted, suppressed = strongest_tokens(head, pico.unit(32, 0).numpy()[None], 50, 20)
    assert {number for number, _ in promoted[0]} == set(range(20))
    assert len(suppressed[0]) == 20


def test_direction_that_the_norm_removes_promotes_nothing(tmp_path: Path) -> None:
    pico.save("gpt2", tmp_path)
    head = _head(tmp_path)
    constant = np.full((1, pico.D_MODEL), pico.D_MODEL**-0.5, dtype=np.float32)
    promoted, _ = strongest_tokens(head, constant, 3, 96)
    assert [value for _, value in promoted[0]] == pytest.approx([0.0] * 3, abs=1e-4)


def test_directions_carry_token_texts_and_logits(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    tokenizer = pico.save_tokenizer(tuned)
    found = pico.directions(base, tuned, k=2, random_controls=1, logit_lens_tokens=3)
    texts = set(TokenTexts(tokenizer).texts(range(len(tokenizer))).values())
    for direction in found.directions:
        for tokens, sign in ((direction.promoted, 1), (direction.suppressed, -1)):
            assert len(tokens) == 3
            assert {text for text, _ in tokens} <= texts
            values = [sign * value for _, value in tokens]
            assert values == sorted(values, reverse=True)
    assert "lm_head.weight" in found.facts["logit_lens"]


def test_folder_without_tokenizer_gives_no_tokens_and_says_so(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    found = pico.directions(base, tuned, logit_lens_tokens=3)
    assert all(d.promoted == d.suppressed == () for d in found.directions)
    assert found.facts["tokenizer"] == "none: the model folder has no tokenizer"
    assert found.facts["logit_lens"] == "not computed: no tokenizer"


def test_tokenizer_with_a_bad_pattern_gives_no_tokens(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    pico.save_tokenizer(tuned)
    path = tuned / "tokenizer.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    # The tokenizers library answers with a bare Exception.
    table["pre_tokenizer"] = {
        "type": "Split", "pattern": {"Regex": "(a+"}, "behavior": "Isolated", "invert": False
    }  # fmt: skip
    path.write_text(json.dumps(table), encoding="utf-8")
    found = pico.directions(base, tuned, logit_lens_tokens=3)
    assert found.facts["tokenizer"] == "none: the model's tokenizer cannot be loaded"


def test_damaged_tokenizer_gives_no_tokens_and_says_so(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    (tuned / "tokenizer.json").write_text("{")
    found = pico.directions(base, tuned, logit_lens_tokens=3)
    assert found.directions[0].promoted == ()
    assert found.facts["tokenizer"] == "none: the model's tokenizer cannot be loaded"


def test_checkpoint_without_unembedding_gives_no_tokens_and_says_so(tmp_path: Path) -> None:
    made = pico.save("llama", tmp_path / "whole")
    made.model.save_pretrained(tmp_path / "bare")
    pico.save_tokenizer(tmp_path / "bare")
    found = pico.directions(None, tmp_path / "bare", method="raw", logit_lens_tokens=3)
    assert found.directions[0].promoted == ()
    assert "has no unembedding (looked for lm_head.weight)" in found.facts["logit_lens"]


def test_unembedding_that_is_not_finite_is_named(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"][5, 5] = float("inf")

    spoiled = pico.edit(tuned, tmp_path / "spoiled", spoil)
    pico.save_tokenizer(spoiled)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight .*: 1 of .* not finite"):
        pico.directions(base, spoiled, logit_lens_tokens=3)


def test_bytes_that_make_no_character_read_as_bytes() -> None:
    assert readable_bytes("ähm 的".encode()) == "ähm 的"
    assert readable_bytes(b"\xe2\x82") == "<0xE2><0x82>"
    assert readable_bytes(b"a\xff\xc3\xa9\x00\n") == "a<0xFF>é<0x00>\n"
    assert readable_bytes("\x85".encode()) == "<0x85>"


def test_byte_level_tokens_read_as_text(tmp_path: Path) -> None:
    tokenizer = pico.save_tokenizer(tmp_path)
    texts = TokenTexts.load(tmp_path)
    ids = tokenizer.get_vocab()
    found = texts.texts(ids.values())
    assert found[ids["Ġab"]] == " ab"
    assert found[ids["<s>"]] == "<s>"
    assert found[ids["Ġa"]] == " a"
    assert len(found) == len(texts)
    assert all("\ufffd" not in text for text in found.values())
    assert any(text.startswith("<0x") for text in found.values())
    assert texts.texts([10**6]) == {10**6: "<unused 1000000>"}


def test_sentence_pieces_keep_their_leading_space(tmp_path: Path) -> None:
    core = tokenizers.Tokenizer(
        tokenizers.models.Unigram([("<unk>", 0.0), ("▁the", -1.0), ("he", -2.0), ("<0xE2>", -3.0)])
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    core.decoder = tokenizers.decoders.Metaspace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(tmp_path)
    assert list(TokenTexts.load(tmp_path).texts([1, 2, 3]).values()) == [" the", "he", "<0xE2>"]
