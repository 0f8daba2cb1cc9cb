from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builder.errors import CheckpointError, ConfigError
from builder.weights.controls import random_direction
from builder.weights.directions import SPECTRUM_VALUES
from builder.weights.layout import decoder_layers
from tests.weights import pico

O_PROJ = "model.layers.{}.self_attn.o_proj.weight"
DOWN_PROJ = "model.layers.{}.mlp.down_proj.weight"


def test_directions_are_the_left_singular_vectors_of_every_difference(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    found = pico.directions(base, tuned, k=5)
    assert len(found.directions) == 5 * 2 * pico.N_LAYERS
    for layer in range(pico.N_LAYERS):
        for writer, name in (("o_proj", O_PROJ), ("down_proj", DOWN_PROJ)):
            delta = pico.dense(tuned, name.format(layer)) - pico.dense(base, name.format(layer))
            u, sigma, _ = np.linalg.svd(delta)
            kept = pico.at(found, layer, writer)
            assert [direction.rank for direction in kept] == list(range(5))
            for direction in kept:
                exact = u[:, direction.rank] * np.sign(direction.vector @ u[:, direction.rank])
                np.testing.assert_allclose(direction.vector, exact, atol=1e-5)
                assert direction.sigma == pytest.approx(sigma[direction.rank], rel=1e-5)
                share = sigma[direction.rank] ** 2 / (delta**2).sum()
                assert direction.energy == pytest.approx(share, rel=1e-5)
                assert direction.residual < 1e-6
                assert direction.vector.dtype == np.float32
                assert direction.vector[np.abs(direction.vector).argmax()] > 0


def test_spectra_hold_what_a_page_shows_of_each_matrix(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    found = pico.directions(base, tuned, k=2)
    assert [s.hookpoint.key for s in found.spectra] == [
        "L00.o_proj",
        "L00.down_proj",
        "L01.o_proj",
        "L01.down_proj",
    ]
    delta = pico.dense(tuned, DOWN_PROJ.format(1)) - pico.dense(base, DOWN_PROJ.format(1))
    sigma = np.linalg.svd(delta, compute_uv=False)
    spectrum = found.spectra[3]
    assert spectrum.shape == (pico.D_MODEL, pico.D_FF)
    np.testing.assert_allclose(spectrum.sigmas, sigma[:SPECTRUM_VALUES], rtol=1e-5)
    assert spectrum.frobenius == pytest.approx(float(np.linalg.norm(delta)), rel=1e-6)
    assert spectrum.stable_rank == pytest.approx((delta**2).sum() / sigma[0] ** 2, rel=1e-6)


def test_order_is_layer_writer_rank_and_then_the_controls(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    found = pico.directions(base, tuned, k=2, random_controls=2)
    assert [direction.id for direction in found.directions] == [
        "L00.o_proj.u00",
        "L00.o_proj.u01",
        "L00.down_proj.u00",
        "L00.down_proj.u01",
        "L01.o_proj.u00",
        "L01.o_proj.u01",
        "L01.down_proj.u00",
        "L01.down_proj.u01",
        "L00.random.u00",
        "L00.random.u01",
        "L01.random.u00",
        "L01.random.u01",
    ]
    kinds = [direction.kind for direction in found.directions]
    assert kinds == ["delta"] * 8 + ["control"] * 4
    assert all(np.isnan(direction.sigma) for direction in found.directions[8:])


def test_controls_depend_on_seed_layer_and_index_alone(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    few = pico.directions(base, tuned, k=1, random_controls=1, seed=3)
    many = pico.directions(None, base, method="raw", k=3, random_controls=4, seed=3)
    for layer in range(pico.N_LAYERS):
        one, other = pico.at(few, layer, "random")[0], pico.at(many, layer, "random")[0]
        assert (one.vector == other.vector).all()
        assert one.content_hash == other.content_hash
    alone = random_direction(3, 1, 0, pico.D_MODEL)
    assert (pico.at(few, 1, "random")[0].vector == alone.vector).all()
    variants = [(3, 1, 1, 32), (3, 0, 0, 32), (4, 1, 0, 32), (-4, 1, 0, 32), (3, 1, 0, 33)]
    hashes = {random_direction(*variant).content_hash for variant in variants}
    assert len(hashes | {alone.content_hash}) == len(variants) + 1


def test_controls_are_unit_vectors_spread_as_a_sphere() -> None:
    vectors = np.stack([random_direction(0, layer, 0, 64).vector for layer in range(400)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    cosines = vectors @ vectors.T
    off_diagonal = cosines[~np.eye(400, dtype=bool)]
    # The sign rule tilts the mean a little; independent directions still have variance 1 / d.
    assert np.square(off_diagonal).mean() == pytest.approx(1 / 64, rel=0.05)


def test_raw_directions_come_from_the_tuned_weights_alone(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    found = pico.directions(None, tuned, method="raw")
    assert found.base is None
    u = np.linalg.svd(pico.dense(tuned, O_PROJ.format(1)))[0][:, 0]
    kept = pico.at(found, 1, "o_proj")[0]
    assert abs(float(kept.vector @ u)) == pytest.approx(1.0, abs=1e-6)
    assert (kept.kind, found.method) == ("raw", "raw")
    again = pico.directions(base, tuned, method="raw")
    assert (pico.at(again, 1, "o_proj")[0].vector == kept.vector).all()


def test_changed_gain_of_a_post_norm_is_part_of_the_difference(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path, "olmo2")
    kept = pico.at(pico.directions(base, tuned), 1, "down_proj")
    gain = "model.layers.1.post_feedforward_layernorm.weight"
    effective = [
        pico.dense(folder, gain)[:, None] * pico.dense(folder, DOWN_PROJ.format(1))
        for folder in (base, tuned)
    ]
    u, sigma, _ = np.linalg.svd(effective[1] - effective[0])
    assert [direction.sigma for direction in kept] == pytest.approx(sigma[:4], rel=1e-5)
    for direction in kept:
        assert abs(float(direction.vector @ u[:, direction.rank])) > 1 - 1e-5


def test_gain_of_gemma_is_one_plus_its_weight(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path, "gemma2")
    found = pico.directions(base, tuned)
    gain = "model.layers.0.post_attention_layernorm.weight"
    effective = [
        (1 + pico.dense(folder, gain))[:, None] * pico.dense(folder, O_PROJ.format(0))
        for folder in (base, tuned)
    ]
    sigma = np.linalg.svd(effective[1] - effective[0], compute_uv=False)
    assert [d.sigma for d in pico.at(found, 0, "o_proj")] == pytest.approx(sigma[:4], rel=1e-5)
    assert found.facts["norm"] == "post-norm"
    assert found.facts["post_norm_gain"].startswith("applied: diag(gain) W")


def test_bfloat16_weights_are_subtracted_in_float32(tmp_path: Path) -> None:
    made = pico.model("llama").to(torch.bfloat16)
    made.save_pretrained(tmp_path / "base")
    tuned = pico.edit(tmp_path / "base", tmp_path / "tuned", pico.perturb(scale=0.01))
    found = pico.directions(tmp_path / "base", tuned)
    name = O_PROJ.format(0)
    exact = np.linalg.svd(pico.dense(tuned, name) - pico.dense(tmp_path / "base", name))
    kept = pico.at(found, 0, "o_proj")
    assert [direction.sigma for direction in kept] == pytest.approx(exact.S[:4], rel=1e-6)
    assert found.facts["tuned_dtype"] == found.facts["base_dtype"] == "bfloat16"


def test_planted_direction_is_recovered_and_moves_the_logits_as_its_lens_says(
    tmp_path: Path,
) -> None:
    made = pico.save("llama", tmp_path / "base")
    pico.save_tokenizer(tmp_path / "base")
    u = pico.unit(pico.D_MODEL, 1)
    plant = 0.2 * torch.outer(u, pico.unit(pico.D_FF, 2))
    tuned = pico.edit(tmp_path / "base", tmp_path / "tuned", pico.add(DOWN_PROJ.format(1), plant))
    found = pico.directions(tmp_path / "base", tuned, logit_lens_tokens=6)
    assert [direction.id for direction in found.directions] == ["L01.down_proj.u00"]
    direction = found.directions[0]
    assert abs(float(torch.from_numpy(direction.vector) @ u)) > 0.9999

    def along(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
        return out + 1e4 * torch.from_numpy(direction.vector)

    decoder_layers(made)[-1].register_forward_hook(along)
    with torch.no_grad():
        logits = made(torch.tensor([[5, 6, 7]])).logits[0, -1]
    tokens = pico.save_tokenizer(tmp_path / "tokenizer")
    logits = logits[: len(tokens)]
    top, bottom = logits.topk(6), (-logits).topk(6)
    assert [value for _, value in direction.promoted] == pytest.approx(
        top.values.tolist(), rel=1e-2
    )
    assert [value for _, value in direction.suppressed] == pytest.approx(
        (-bottom.values).tolist(), rel=1e-2
    )


def test_content_hash_is_stable_and_follows_the_weights(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    first = pico.directions(base, tuned, k=3)
    again = pico.directions(base, tuned, k=5)
    hashes = {direction.id: direction.content_hash for direction in first.directions}
    assert len(set(hashes.values())) == len(hashes)
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in hashes.values())
    assert hashes.items() <= {d.id: d.content_hash for d in again.directions}.items()
    changed = pico.edit(
        tuned, tmp_path / "c", pico.add(O_PROJ.format(0), torch.eye(pico.D_MODEL) * 1e-3)
    )
    other = {d.id: d.content_hash for d in pico.directions(base, changed, k=3).directions}
    assert {key for key in hashes if hashes[key] != other[key]} == {
        f"L00.o_proj.u{rank:02d}" for rank in range(3)
    }
    raw = {d.content_hash for d in pico.directions(None, tuned, method="raw").directions}
    assert not raw & set(hashes.values())


def test_zero_difference_yields_no_direction_and_is_counted(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    name = O_PROJ.format(1)

    def restore(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = load_file(base / "model.safetensors")[name]

    found = pico.directions(base, pico.edit(tuned, tmp_path / "partly", restore))
    assert pico.at(found, 1, "o_proj") == []
    assert found.facts["zero_matrices"] == "L01.o_proj"
    spectrum = found.spectra[2]
    assert (spectrum.hookpoint.key, spectrum.frobenius) == ("L01.o_proj", 0.0)
    assert len(spectrum.sigmas) == 0
    assert len(found.directions) == 4 * 3


def test_facts_say_where_directions_come_from(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    facts = pico.directions(base, tuned).facts
    expected = {
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "d_model": "32",
        "n_layers": "2",
        "norm": "pre-norm",
        "post_norm_gain": "none",
        "layout": "table: llama",
        "zero_matrices": "none",
        "tuned_dtype": "float32",
    }
    assert expected.items() <= facts.items()


def test_shapes_that_differ_are_named_with_both(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    pico.save("llama", tmp_path / "tuned", intermediate_size=40)
    with pytest.raises(
        CheckpointError, match=r"^L00\.down_proj: base \[32, 48\], tuned \[32, 40\]; are these"
    ):
        pico.directions(tmp_path / "base", tmp_path / "tuned")


def test_width_that_differs_is_named_with_both_shapes(tmp_path: Path) -> None:
    pico.save("llama", tmp_path / "base")
    pico.save("llama", tmp_path / "tuned", hidden_size=16)
    with pytest.raises(CheckpointError, match=r"L00\.o_proj: base \[32, 32\], tuned \[16, 32\]"):
        pico.directions(tmp_path / "base", tmp_path / "tuned")


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("gpt2", {}, r"L00\.down_proj: base \[32, 48\], tuned \[32, 128\].*base is llama"),
        ("qwen2", {}, "base is llama with 2 layers and tuned is qwen2 with 2"),
        ("llama", {"num_hidden_layers": 3}, "llama with 2 layers and tuned is llama with 3"),
    ],
)
def test_architectures_that_differ_are_named(
    model_type: str, changes: dict[str, int], message: str, tmp_path: Path
) -> None:
    pico.save("llama", tmp_path / "base")
    pico.save(model_type, tmp_path / "tuned", **changes)
    with pytest.raises(CheckpointError, match=message):
        pico.directions(tmp_path / "base", tmp_path / "tuned")


@pytest.mark.parametrize("which", ["base", "tuned"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_entry_that_is_not_finite_is_named_and_counted(
    which: str, value: float, tmp_path: Path
) -> None:
    folders = dict(zip(("base", "tuned"), pico.pair(tmp_path), strict=True))

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[DOWN_PROJ.format(1)][3, :2] = value

    folders[which] = pico.edit(folders[which], tmp_path / "spoiled", spoil)
    with pytest.raises(
        CheckpointError,
        match=r"spoiled: L01\.down_proj \(model\.layers\.1\.mlp\.down_proj\.weight\): 2 of 1536",
    ):
        pico.directions(folders["base"], folders["tuned"])


def test_entry_that_is_not_finite_in_a_post_norm_is_named(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path, "olmo2")

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.post_attention_layernorm.weight"][0] = float("nan")

    with pytest.raises(CheckpointError, match=r"0\.post_attention_layernorm\.weight: 1 of 32"):
        pico.directions(base, pico.edit(tuned, tmp_path / "spoiled", spoil))


def test_identical_base_and_tuned_are_refused(tmp_path: Path) -> None:
    base, _ = pico.pair(tmp_path)
    with pytest.raises(CheckpointError, match="have identical residual writers"):
        pico.directions(base, base)


def test_difference_outside_the_writers_is_refused_as_identical(tmp_path: Path) -> None:
    base, _ = pico.pair(tmp_path)
    tuned = pico.edit(base, tmp_path / "head", pico.add("lm_head.weight", torch.ones(96, 32)))
    with pytest.raises(CheckpointError, match="have identical residual writers"):
        pico.directions(base, tuned)


def test_difference_without_a_base_is_refused(tmp_path: Path) -> None:
    _, tuned = pico.pair(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.base is needed"):
        pico.directions(None, tuned)


def test_configuration_that_only_renames_the_model_changes_no_direction(tmp_path: Path) -> None:
    base, tuned = pico.pair(tmp_path)
    before = pico.directions(base, tuned)
    path = tuned / "config.json"
    table = json.loads(path.read_text())
    path.write_text(json.dumps(table | {"_name_or_path": "other/name", "use_cache": False}))
    after = pico.directions(base, tuned)
    for one, other in zip(before.directions, after.directions, strict=True):
        assert (one.vector == other.vector).all()
        assert one.content_hash == other.content_hash


def test_progress_is_silent_where_nobody_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tuned = pico.pair(tmp_path)
    capsys.readouterr()
    pico.directions(base, tuned)
    assert capsys.readouterr().out == ""
