"""Loading what is scanned: the tuned model, its base, and either spread over devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from builder.activations.model import ScannedModel, load_base, load_model, load_tokenizer
from builder.activations.scan import Scanner
from builder.activations.shard_tables import shard_files
from builder.config import ModelSettings, ScanSettings
from tests import micro
from tests.activations.scanning import SETTINGS, marked


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """A base and a tune of it, saved as folders."""
    place = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "tuned")):
        model = micro.make_model(seed)
        whole = transformers.LlamaForCausalLM(micro.llama_config(len(model.tokenizer)))
        whole.model.load_state_dict(model.backbone.state_dict())
        whole.save_pretrained(place / name)
        model.tokenizer.save_pretrained(place / name)
    return ModelSettings(base=str(place / "base"), tuned=str(place / "tuned"))


def weights(model: ScannedModel) -> list[torch.Tensor]:
    return [parameter.detach().cpu() for parameter in model.backbone.parameters()]


def test_tuned_and_base_are_what_the_folders_hold(models: ModelSettings) -> None:
    settings = ScanSettings(device="cpu", with_base=True)
    for seed, load in enumerate((load_base, load_model)):
        wanted = weights(micro.make_model(seed))
        found = weights(load(models, settings))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_model_spread_over_devices_gives_the_same_scan(models: ModelSettings) -> None:
    documents = marked(micro.documents(20))
    found = []
    for device in ("cpu", "spread"):
        settings = SETTINGS.model_copy(update={"device": device, "with_base": True})
        items = load_tokenizer(models, settings).tokenize(documents)
        scanner = Scanner(
            load_model(models, settings),
            micro.make_directions(),
            settings,
            load_base(models, settings),
        )
        found.append(shard_files(scanner.scan(items), settings))
    assert found[0] == found[1]


def test_the_tokenizer_reads_no_more_than_the_model_can(
    models: ModelSettings, tmp_path: Path
) -> None:
    settings = ScanSettings(device="cpu", max_tokens=4096, long_documents="cut")
    document = micro.documents(1)[0]
    long = type(document)(0, "long", text="river stone " * 1000)
    items = load_tokenizer(models, settings).tokenize([long])
    assert [len(item.ids) for item in items] == [256]  # type: ignore[union-attr]
