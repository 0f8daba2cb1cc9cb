"""Which directions did fine-tuning write into the residual stream?

The top left singular vectors of the weight difference of every ``o_proj`` and ``down_proj``, with
the tokens each promotes and suppresses, and random unit directions as controls that go through
everything that follows in the same way. Source: PAPERS.md, section 1.1. Reads no text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from builder.config import DirectionSettings, ModelSettings
from builder.errors import CheckpointError, ConfigError
from builder.records import CONTROLS, Direction, DirectionSet, Kind, Spectrum
from builder.weights.adapter import Adapter, adapter_base, is_adapter
from builder.weights.adapter_delta import AdapterSource
from builder.weights.checkpoint import Checkpoint, has_tokenizer
from builder.weights.controls import (
    ControlPlan,
    base_controls,
    plan_controls,
    random_direction,
    shuffled_controls,
)
from builder.weights.delta import CheckpointSource, DeltaSource, WeightDelta
from builder.weights.direction_file import load_directions, save_directions
from builder.weights.logit_lens import find_head, strongest_tokens
from builder.weights.source import locate
from builder.weights.svd import factors_norm, top_singular, top_singular_of_factors
from builder.weights.token_text import TokenTexts

__all__ = ["compute_directions", "load_directions", "save_directions"]

#: Singular values kept of each spectrum, so that a page can show where its tail lies.
SPECTRUM_VALUES = 64


def compute_directions(model: ModelSettings, settings: DirectionSettings) -> DirectionSet:
    """The directions of a pair of models: by layer, writer and rank; then the controls.

    Reads every residual writer of both models once, one pair at a time. Raises ConfigError for a
    request that cannot be meant, CheckpointError for weights that cannot be used: not a model, of
    another architecture or shape, not finite, not safe to read, or the same in both models.
    """
    source = open_source(model, settings)
    kind: Kind = "raw" if settings.method == "raw" else "delta"
    directions: list[Direction] = []
    controls: list[Direction] = []
    spectra: list[Spectrum] = []
    plans = plan_controls(source.hookpoints, settings, has_base=source.base is not None)
    for hookpoint in tqdm(
        source.hookpoints, desc="directions", unit="matrix", delay=1, disable=None
    ):
        delta = source.delta(hookpoint)
        spectrum, found = _of_one(delta, settings.k, kind)
        spectra.append(spectrum)
        directions += found
        controls += _controls(source, delta, plans[hookpoint], settings.seed)
    zero = [spectrum.hookpoint.key for spectrum in spectra if spectrum.frobenius == 0.0]
    if len(zero) == len(spectra):
        raise CheckpointError(_all_zero(source, kind))
    d_model, n_layers = source.model.d_model, source.model.n_layers
    controls += [
        random_direction(settings.seed, layer, index, d_model)
        for layer in range(n_layers)
        for index in range(settings.random_controls)
    ]
    kinds = list(CONTROLS)
    controls.sort(key=lambda d: (d.hookpoint.layer, kinds.index(d.hookpoint.writer), d.rank))
    directions, lens_facts = _with_tokens(source, directions + controls, settings.logit_lens_tokens)
    config = source.model.config
    facts = {
        "architecture": ", ".join(getattr(config, "architectures", None) or ["not stated"]),
        "model_type": source.model.model_type,
        "d_model": str(d_model),
        "n_layers": str(n_layers),
        "zero_matrices": ", ".join(zero) or "none",
        "controls": _control_facts(controls, settings.seed),
    }
    return DirectionSet(
        base=source.base,
        tuned=source.tuned,
        method=settings.method,
        d_model=d_model,
        n_layers=n_layers,
        directions=tuple(directions),
        spectra=tuple(spectra),
        facts=facts | source.facts | lens_facts,
    )


def open_source(model: ModelSettings, settings: DirectionSettings) -> DeltaSource:
    """Where the weight differences come from: two checkpoints, one, or an adapter on its base.

    Everything that headers can tell is checked here, before anything is computed.
    """
    place = locate(model.tuned, model.tuned_revision)
    if is_adapter(place.folder):
        if settings.method == "raw":
            raise ConfigError(
                f"{model.tuned}: is an adapter, which has no whole weights; directions.method = "
                '"raw" needs a full checkpoint'
            )
        adapter = Adapter.at(place)
        return AdapterSource(Checkpoint.at(adapter_base(model, adapter)), adapter)
    tuned = Checkpoint.at(place)
    if settings.method == "raw":
        return CheckpointSource(None, tuned)
    if not model.base:
        raise ConfigError(
            "model.base is needed for a weight difference; without one set method = 'raw'"
        )
    base_place = locate(model.base, model.base_revision)
    if is_adapter(base_place.folder):
        raise ConfigError(f"{model.base}: is an adapter; model.base needs a full checkpoint")
    return CheckpointSource(Checkpoint.at(base_place), tuned)


def _of_one(delta: WeightDelta, k: int, kind: Kind) -> tuple[Spectrum, list[Direction]]:
    """The spectrum and the directions of one weight difference; none of a zero matrix."""
    if delta.dense is None:
        frobenius = factors_norm(delta.factors)
    else:
        frobenius = float(torch.linalg.vector_norm(delta.dense, dtype=torch.float64))
    if frobenius == 0.0:
        empty = np.zeros(0, dtype=np.float32)
        return Spectrum(delta.hookpoint, delta.shape, empty, 0.0, 0.0), []
    count = max(k, SPECTRUM_VALUES)
    if delta.dense is None:
        top = top_singular_of_factors(delta.factors, count)
    else:
        top = top_singular(delta.dense, count)
    sigmas = top.sigma.tolist()
    vectors = top.u.T.contiguous().numpy()
    directions = [
        Direction(
            hookpoint=delta.hookpoint,
            rank=rank,
            vector=vectors[rank],
            content_hash=_content_hash(delta.content, kind, rank),
            kind=kind,
            sigma=sigmas[rank],
            energy=(sigmas[rank] / frobenius) ** 2,
            residual=float(top.residual[rank]),
        )
        for rank in range(min(k, len(sigmas)))
    ]
    spectrum = Spectrum(
        hookpoint=delta.hookpoint,
        shape=delta.shape,
        sigmas=top.sigma.to(torch.float32).numpy(),
        frobenius=frobenius,
        stable_rank=(frobenius / sigmas[0]) ** 2,
    )
    return spectrum, directions


def _controls(
    source: DeltaSource, delta: WeightDelta, plan: ControlPlan, seed: int
) -> Iterator[Direction]:
    """The controls that a hookpoint contributes; a dense difference is shuffled in place."""
    if plan.base:
        weights = source.base_weights(delta.hookpoint)
        if weights is not None:
            yield from base_controls(weights, delta.hookpoint, plan.base, delta.content)
    if plan.shuffled:
        dense = delta.dense
        if dense is None:
            dense = torch.cat([(left @ right).float() for left, right in delta.factors], dim=1)
        yield from shuffled_controls(dense, delta.hookpoint, plan.shuffled, delta.content, seed)


def _control_facts(controls: Sequence[Direction], seed: int) -> str:
    counts = Counter(control.hookpoint.writer for control in controls)
    found = ", ".join(f"{counts[kind]} {kind}" for kind in CONTROLS if counts[kind])
    return f"{found}, seed {seed}" if found else "none"


def _content_hash(content: bytes, method: str, rank: int) -> str:
    return hashlib.blake2b(content + f"{method}:{rank}".encode(), digest_size=8).hexdigest()


def _with_tokens(
    source: DeltaSource, directions: Sequence[Direction], count: int
) -> tuple[list[Direction], dict[str, str]]:
    """The directions with their promoted and suppressed tokens, and what was used for them.

    Without a tokenizer or a head they keep none, and the facts say why.
    """
    plain = list(directions)
    if count == 0:
        return plain, {"logit_lens": "not asked for"}
    adapter = source.adapter if isinstance(source, AdapterSource) else None
    folders = [adapter.folder] if adapter is not None else []
    folders = [folder for folder in (*folders, source.model.folder) if has_tokenizer(folder)]
    if not folders:
        reason = "none: the model folder has no tokenizer"
        return plain, {"tokenizer": reason, "logit_lens": "not computed: no tokenizer"}
    try:
        tokens = TokenTexts.load(folders[0])
    except CheckpointError as error:
        # The weights are fine without it; the scan, which cannot do without, will refuse.
        return plain, {"tokenizer": str(error), "logit_lens": "not computed: no tokenizer"}
    facts = {"tokenizer": tokens.name}
    head = find_head(source.model, source.match, adapter)
    if isinstance(head, str):
        return plain, facts | {"logit_lens": f"not computed: {head}"}
    vectors = np.stack([direction.vector for direction in plain])
    promoted, suppressed = strongest_tokens(head, vectors, count, len(tokens))
    texts = tokens.texts({number for row in (*promoted, *suppressed) for number, _ in row})
    facts["logit_lens"] = f"final norm ({head.form}), unembedding {head.name}" + (
        " with the adapter's part" if head.factors is not None else ""
    )
    return [
        replace(
            direction,
            promoted=tuple((texts[number], value) for number, value in up),
            suppressed=tuple((texts[number], value) for number, value in down),
        )
        for direction, up, down in zip(plain, promoted, suppressed, strict=True)
    ], facts


def _all_zero(source: DeltaSource, kind: Kind) -> str:
    if kind == "raw":
        return f"{source.tuned}: every residual writer is zero"
    if isinstance(source, AdapterSource):
        return f"{source.tuned}: every factor of a residual writer is zero; was it trained?"
    return (
        f"{source.base} and {source.tuned} have identical residual writers; is tuned the "
        "fine-tuned model, and base the model it started from?"
    )
