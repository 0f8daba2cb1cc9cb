"""Which directions did fine-tuning write into the residual stream?

The top left singular vectors of the weight difference of every ``o_proj`` and ``down_proj``, with
what each is worth (its size against noise, its distance to the next), what feeds it, the tokens it
promotes and suppresses and what lies near it; and controls that go through everything that follows
in the same way. Source: Zhong and Raghunathan 2025 (arXiv 2508.00161). Reads no text.
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
from builder.records import CONTROLS, Direction, DirectionSet, Hookpoint, Kind, Spectrum
from builder.weights.adapter_delta import AdapterSource
from builder.weights.checkpoint import has_tokenizer
from builder.weights.controls import (
    ControlPlan,
    base_controls,
    plan_controls,
    random_direction,
    shuffled_controls,
)
from builder.weights.delta import DeltaSource, WeightDelta
from builder.weights.direction_file import load_directions, save_directions
from builder.weights.features import head_shares, neuron_shares, spectrum_of
from builder.weights.logit_lens import find_head, strongest_tokens
from builder.weights.matrix import part_shape
from builder.weights.neighbours import with_neighbours
from builder.weights.open_source import open_source
from builder.weights.svd import (
    FULL_SIDE,
    Singular,
    factors_norm,
    full_spectrum,
    matrix_norm,
    top_singular,
    top_singular_of_factors,
)
from builder.weights.token_text import TokenTexts
from builder.weights.truncated import groups

__all__ = ["compute_directions", "load_directions", "save_directions"]

#: Singular values kept of each spectrum, so that a page can show where its tail lies.
SPECTRUM_VALUES = 64


def compute_directions(model: ModelSettings, settings: DirectionSettings) -> DirectionSet:
    """The directions of a pair of models: by layer, writer and rank; then the controls.

    Reads every residual writer of both models once, one pair at a time, with ``matrices = "all"``
    every reader as well. Raises ConfigError for a request that cannot be meant, CheckpointError for
    weights that cannot be used: not a model, of another architecture or shape, not finite, not
    safe to read, or the same in both models.
    """
    source = open_source(model, settings)
    device = _device(settings.device)
    kind: Kind = "raw" if settings.method == "raw" else "delta"
    everything = settings.matrices == "all"
    directions: list[Direction] = []
    controls: list[Direction] = []
    spectra: list[Spectrum] = []
    plans = plan_controls(source.hookpoints, settings, has_base=source.base is not None)
    readers = source.readers if everything else ()
    bar = tqdm(total=len(source.hookpoints) + len(readers), desc="directions", unit="matrix",
               delay=1, disable=None)  # fmt: skip
    with bar:
        for hookpoint in source.hookpoints:
            controls += _base_controls(source, hookpoint, plans[hookpoint], device)
            delta = source.delta(hookpoint).to(device)
            spectrum, top = _decomposed(delta, settings.k, full=everything)
            spectra.append(spectrum)
            directions += _directions(source, delta, spectrum, top, kind, settings.k)
            controls += _shuffled_controls(delta, plans[hookpoint], settings.seed)
            del delta  # before the next one is read
            bar.update()
        written = len(spectra)
        for hookpoint in readers:
            spectra.append(_decomposed(source.delta(hookpoint).to(device), 1, full=True)[0])
            bar.update()
    zero = [spectrum.hookpoint.key for spectrum in spectra if spectrum.frobenius == 0.0]
    if not any(spectrum.frobenius for spectrum in spectra[:written]):
        raise CheckpointError(_all_zero(source, kind))
    d_model, n_layers = source.model.d_model, source.model.n_layers
    controls += [
        random_direction(settings.seed, layer, index, d_model)
        for layer in range(n_layers)
        for index in range(settings.random_controls)
    ]
    kinds = list(CONTROLS)
    controls.sort(key=lambda d: (d.hookpoint.layer, kinds.index(d.hookpoint.writer), d.rank))
    found = with_neighbours(directions + controls)
    found, lens_facts = _with_tokens(source, found, settings.logit_lens_tokens)
    config = source.model.config
    facts = {
        "architecture": ", ".join(getattr(config, "architectures", None) or ["not stated"]),
        "model_type": source.model.model_type,
        "d_model": str(d_model),
        "n_layers": str(n_layers),
        "zero_matrices": ", ".join(zero) or "none",
        "controls": _control_facts(controls, settings.seed),
    }
    if everything:
        facts["unread_matrices"] = "; ".join(
            f"{name}: {why}" for name, why in source.match.unread.items()
        ) or "none"  # fmt: skip
    spectra.sort(key=lambda spectrum: spectrum.hookpoint.layer)
    return DirectionSet(
        base=source.base,
        tuned=source.tuned,
        method=settings.method,
        d_model=d_model,
        n_layers=n_layers,
        directions=tuple(found),
        spectra=tuple(spectra),
        facts=facts | source.facts | lens_facts,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"directions.device = {name!r} cannot be used here: {error}; 'auto' takes what there is"
        ) from error
    return device


def _decomposed(delta: WeightDelta, k: int, *, full: bool) -> tuple[Spectrum, Singular | None]:
    """The spectrum and the top ``k`` + 1 triples or more of one weight difference; none of zero."""
    dense = delta.dense
    frobenius = factors_norm(delta.factors) if dense is None else matrix_norm(dense)
    if frobenius == 0.0:
        return spectrum_of(delta, torch.zeros(0), 0.0, is_full=True), None
    small = min(delta.shape) <= FULL_SIDE
    if dense is None:
        # All that is not zero: as many as the factors are wide.
        top = top_singular_of_factors(delta.factors, min(delta.shape))
        is_full = True
    else:
        top = top_singular(dense, min(delta.shape) if small else k + 1)
        is_full = small
    sigma = top.sigma
    if full and dense is not None and not small:
        sigma, is_full = full_spectrum(dense).cpu(), True
        sigma = torch.cat([top.sigma, sigma[len(top.sigma) :]])
    spectrum = spectrum_of(delta, sigma, frobenius, is_full=is_full)
    return replace(spectrum, sigmas=spectrum.sigmas[: max(k, SPECTRUM_VALUES)].copy()), top


def _directions(
    source: DeltaSource,
    delta: WeightDelta,
    spectrum: Spectrum,
    top: Singular | None,
    kind: Kind,
    k: int,
) -> Iterator[Direction]:
    """The directions of one weight difference, by rank."""
    if top is None:
        return
    sigmas = top.sigma.tolist()
    count = min(k, len(sigmas))
    vectors = top.u[:, :count].T.contiguous().numpy()
    reads = _reads(source, delta.hookpoint, top.v[:, :count])
    grouped = {
        rank: tuple(range(first, stop))
        for first, stop in groups(sigmas)
        for rank in range(first, stop)
        if stop - first > 1
    }
    for rank, sigma in enumerate(sigmas[:count]):
        # Behind the last there are only zeros, or values that were not asked for.
        others = [*sigmas[max(0, rank - 1) : rank], (*sigmas, 0.0)[rank + 1]]
        yield Direction(
            hookpoint=delta.hookpoint,
            rank=rank,
            vector=vectors[rank],
            content_hash=_content_hash(delta.content, kind, rank),
            kind=kind,
            sigma=sigma,
            energy=(sigma / spectrum.frobenius) ** 2,
            residual=float(top.residual[rank]),
            gap=min(abs(sigma - other) for other in others) / sigma,
            group=grouped.get(rank, ()),
            reads=reads[rank],
        )


def _reads(
    source: DeltaSource, hookpoint: Hookpoint, right: torch.Tensor
) -> list[tuple[tuple[str, float], ...]]:
    """What each right singular vector [d_in, n] reads from."""
    if hookpoint.writer == "o_proj":
        heads = getattr(source.model.text_config, "num_attention_heads", None)
        return head_shares(right, heads if isinstance(heads, int) else 0)
    parts = source.match.parts(hookpoint)
    return neuron_shares(right, parts, [part_shape(source.model, part)[1] for part in parts])


def _base_controls(
    source: DeltaSource, hookpoint: Hookpoint, plan: ControlPlan, device: torch.device
) -> Iterator[Direction]:
    weights = source.base_weights(hookpoint) if plan.base else None
    if weights is not None:
        weights = weights.to(device)
        assert weights.dense is not None
        yield from base_controls(weights.dense, hookpoint, plan.base, weights.content)


def _shuffled_controls(delta: WeightDelta, plan: ControlPlan, seed: int) -> Iterator[Direction]:
    """The shuffled controls that a hookpoint contributes; a dense difference is overwritten."""
    if not plan.shuffled:
        return
    dense = delta.dense
    if dense is None:
        dense = torch.cat([left.float() @ right.float() for left, right in delta.factors], dim=1)
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
    except CheckpointError:
        # The weights are fine without it; the scan, which cannot do without, will refuse and say
        # why. Facts are published, and the error names a folder.
        reason = "none: the model's tokenizer cannot be loaded"
        return plain, {"tokenizer": reason, "logit_lens": "not computed: no tokenizer"}
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
    if isinstance(source, AdapterSource) and source.adapter is not None:
        return f"{source.tuned}: every factor of a residual writer is zero; was it trained?"
    return (
        f"{source.base} and {source.tuned} have identical residual writers; is tuned the "
        "fine-tuned model, and base the model it started from?"
    )
