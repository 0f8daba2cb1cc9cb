"""A process that reads damaged model folders, one after another.

``python -m tests.weights.fuzz_driver FOLDER`` prints a line of JSON for each case: what it was, how
it ended, and the largest memory it took. Every case runs in a fork with a limit of time, so that a
hang or a crash ends that case alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from builder.config import DirectionSettings, ModelSettings
from builder.errors import CheckpointError, ConfigError
from builder.weights.directions import compute_directions
from tests.weights import pico
from tests.weights.fuzz_cases import cases, models_of

#: Seconds of the clock that a case may take.
SECONDS = 60
SETTINGS = DirectionSettings(k=2, random_controls=1, logit_lens_tokens=2)


def prepare(folder: Path) -> None:
    """The sound folders that cases are made from."""
    base, tuned = pico.pair(folder)
    for place in (base, tuned):
        pico.save_tokenizer(place)
    shutil.copytree(tuned, folder / "sharded")
    tensors = load_file(tuned / "model.safetensors")
    (folder / "sharded" / "model.safetensors").unlink()
    shards = {name: f"model-{1 + n % 2:05d}-of-00002.safetensors" for n, name in enumerate(tensors)}
    for shard in set(shards.values()):
        part = {name: tensors[name] for name in tensors if shards[name] == shard}
        save_file(part, folder / "sharded" / shard)
    (folder / "sharded" / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": shards})
    )
    shutil.copytree(tuned, folder / "pickled")
    (folder / "pickled" / "model.safetensors").unlink()
    torch.save(tensors, folder / "pickled" / "pytorch_model.bin")
    modules = {
        f"model.layers.{layer}.{name}": pico.factors(d_in, 3, layer)
        for layer in range(pico.N_LAYERS)
        for name, d_in in (("self_attn.o_proj", pico.D_MODEL), ("mlp.down_proj", pico.D_FF))
    }
    pico.adapter(folder / "lora", modules, base_model_name_or_path="../base", use_rslora=False)


def outcome(models: ModelSettings) -> str:
    """How reading ends: ``ok``, the name of an error of ours, or a traceback."""
    try:
        found = compute_directions(models, SETTINGS)
    except (CheckpointError, ConfigError) as error:
        text = str(error)
        return f"{type(error).__name__}: {text}" if len(text) < 2000 else f"{len(text)} characters"
    except BaseException:  # noqa: BLE001 - what must not happen is told
        return traceback.format_exc()
    for direction in found.directions:
        if not np.isclose(np.linalg.norm(direction.vector), 1.0, atol=1e-4):
            return f"{direction.id} is no unit vector"
    return "ok"


def main(folder: Path) -> None:
    """Runs every case in a fork of its own, from the sound folders that were prepared."""
    # What the libraries import and keep on first use is shared by all forks.
    for file in ("tuned/", "lora/"):
        assert outcome(models_of(folder, file)) == "ok"
    for what, make in cases():
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            signal.alarm(SECONDS)
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch) / "models"
                shutil.copytree(folder, copy)
                text = outcome(make(copy))
                os.write(write, text[-5000:].encode("utf-8", "backslashreplace"))
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as stream:
            text = stream.read()
        _, status, usage = os.wait4(child, 0)
        scale = 1 if sys.platform == "darwin" else 1024
        ended = text if status == 0 else f"signal {os.WTERMSIG(status)}: {text}"
        line = {"case": what, "ended": ended, "bytes": usage.ru_maxrss * scale}
        print(json.dumps(line), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
