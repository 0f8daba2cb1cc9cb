"""A monitor comes back from its file as it was, and for nothing but what it was made for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from builder.errors import MonitorError
from builder.monitor.monitor_file import load_monitor, save_monitor
from builder.monitor.ranges import Calibration, extents
from builder.monitor.subject import Subject, subject_of
from builder.monitor.watch import Labels, RangeMonitor
from tests import micro
from tests.monitor.making import model, pieces, tracer

DIRECTIONS = micro.make_directions()
NAMES = tuple(direction.id for direction in DIRECTIONS.directions)
LABELS: Labels = {(NAMES[0], "max"): "tides \u2028 and \U0001f600", (NAMES[3], "min"): ""}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return subject_of(model(), DIRECTIONS)


@pytest.fixture(scope="module")
def monitor() -> RangeMonitor:
    calibration = Calibration(len(NAMES), percentile=5, most=100)
    for one in tracer().traces(pieces(micro.documents(40, seed=1))):
        calibration.add(extents([one], len(NAMES)))
    return RangeMonitor(NAMES, calibration.ranges(), margin=0.02, cap=0.03, labels=LABELS)


@pytest.fixture
def saved(monitor: RangeMonitor, subject: Subject, tmp_path: Path) -> Path:
    path = tmp_path / "monitor.safetensors"
    save_monitor(path, monitor, subject)
    return path


def test_a_monitor_comes_back_and_goes_on(
    monitor: RangeMonitor, subject: Subject, saved: Path
) -> None:
    found = load_monitor(saved, subject)
    assert (found.directions, found.margin, found.cap) == (NAMES, 0.02, 0.03)
    assert (found.labels, found.learned) == (LABELS, 0)
    for name in ("lowest", "highest", "conversations", "beyond"):
        np.testing.assert_array_equal(getattr(found.ranges, name), getattr(monitor.ranges, name))
    strangers = list(tracer().traces(pieces(micro.documents(30, seed=2))))
    seen = [found.observe([one], learn=True) for one in strangers]
    assert any(seen)
    assert found.learned
    save_monitor(saved, found, subject)
    again = load_monitor(saved, subject)
    assert again.learned == found.learned
    for one in strangers:
        assert again.observe([one]) == found.observe([one])
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_the_same_monitor_has_the_same_bytes(
    monitor: RangeMonitor, subject: Subject, saved: Path, tmp_path: Path
) -> None:
    save_monitor(tmp_path / "again", monitor, subject)
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def changed_model(change: Any) -> Subject:
    other = micro.make_model()
    with torch.no_grad():
        change(other)
    return subject_of(other, DIRECTIONS)


def test_a_model_in_another_precision_or_place_is_the_same(subject: Subject) -> None:
    whole = micro.make_model()
    with torch.no_grad():
        # Weights as they are published: rounded to bfloat16.
        for parameter in whole.backbone.parameters():
            parameter.copy_(parameter.bfloat16().float())
    first = subject_of(whole, DIRECTIONS)
    whole.backbone.to(torch.bfloat16)
    first.check(subject_of(whole, DIRECTIONS))
    subject.check(subject_of(micro.make_model(), DIRECTIONS))


@pytest.mark.parametrize("scale", [1e-2, 1e-1])
def test_a_light_tune_of_one_matrix_is_another_model(subject: Subject, scale: float) -> None:
    def tune(other: Any) -> None:
        weight = other.layers[2].self_attn.o_proj.weight
        left, right = torch.randn(len(weight), 1), torch.randn(1, weight.shape[1])
        weight += scale * weight.std() * (left @ right)

    with pytest.raises(MonitorError, match=r"other weights: .*o_proj"):
        subject.check(changed_model(tune))


def test_another_shape_tokenizer_template_or_direction_is_refused(subject: Subject) -> None:
    fewer = dataclasses.replace(DIRECTIONS, directions=DIRECTIONS.directions[1:])
    renamed = dataclasses.replace(DIRECTIONS.directions[0], content_hash="another")
    others = dataclasses.replace(DIRECTIONS, directions=(renamed, *DIRECTIONS.directions[1:]))
    for directions in (fewer, others):
        with pytest.raises(MonitorError, match="12 directions"):
            subject.check(subject_of(model(), directions))
    wider = dataclasses.replace(subject, tensors=("embed [1, 2]", *subject.tensors[1:]))
    with pytest.raises(MonitorError, match="another model"):
        subject.check(wider)
    for tokenizer, said in (
        (micro.make_tokenizer(template=micro.TEMPLATE + " "), "chat template"),
        (micro.make_tokenizer(template=None), "chat template"),
        (micro.make_tokenizer(bos=None), "another"),
    ):
        other = dataclasses.replace(model(), tokenizer=tokenizer)
        with pytest.raises(MonitorError, match=said):
            subject.check(subject_of(other, DIRECTIONS))


def test_a_file_is_refused_for_another_model(saved: Path, subject: Subject) -> None:
    with pytest.raises(MonitorError, match="other weights"):
        load_monitor(saved, subject_of(micro.make_model(seed=4), DIRECTIONS))


def rewritten(path: Path, change: Any) -> Path:
    """The file with its arrays and columns changed by ``change(arrays, columns)``."""
    arrays = dict(load_file(path))
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    columns = json.loads(header["__metadata__"]["columns"])
    change(arrays, columns)
    save_file(arrays, path, metadata={"columns": json.dumps(columns)})
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays, _: arrays.update(lowest=arrays["lowest"][:, :5].copy()), "lowest"),
        (lambda arrays, _: arrays.update(highest=arrays["highest"].astype(np.float64)), "highest"),
        (lambda arrays, _: arrays["highest"].fill(np.inf), "highest"),
        (lambda arrays, _: arrays["lowest"].fill(np.nan), "lowest"),
        (lambda arrays, _: arrays["conversations"].fill(-1), "conversations"),
        (lambda arrays, _: arrays.pop("entries"), "other arrays"),
        (lambda _, columns: columns.update(format="weightatlas monitor 0"), "format"),
        (lambda _, columns: columns.update(roles=["user"]), "roles"),
        (lambda _, columns: columns.update(margin=float("inf")), "damaged"),
        (lambda _, columns: columns.update(margin="0.1"), "margin"),
        (lambda _, columns: columns.update(more=1), "more"),
        (lambda _, columns: columns["directions"].pop(), "directions"),
        (lambda _, columns: columns["ids"].pop(), "damaged"),
    ],
)
def test_a_damaged_file_is_refused(saved: Path, subject: Subject, change: Any, said: str) -> None:
    with pytest.raises(MonitorError, match=said):
        load_monitor(rewritten(saved, change), subject)


def test_what_is_no_file_of_a_monitor_is_refused(
    saved: Path, monitor: RangeMonitor, subject: Subject, tmp_path: Path
) -> None:
    with pytest.raises(MonitorError, match="there is no monitor"):
        load_monitor(tmp_path / "none", subject)
    whole = saved.read_bytes()
    for content in (b"", b"\x80\x04K\x01.", whole[:100], whole[:-10]):
        saved.write_bytes(content)
        with pytest.raises(MonitorError, match="no monitor, or damaged"):
            load_monitor(saved, subject)
    with pytest.raises(MonitorError, match="no monitor, or damaged"):
        load_monitor(tmp_path, subject)
    with pytest.raises(MonitorError, match="cannot be written"):
        save_monitor(tmp_path / "no folder" / "monitor", monitor, subject)
