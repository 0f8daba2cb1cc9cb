"""What do directions cost? Ratios measured in one run, printed as the table of docs/benchmarks.md.

    python bench/directions.py [svd] [pair] [lora] [--device cuda] [--shape qwen2.5-0.5b|7b]

``svd``: the top 20 triples against ``torch.linalg.svd``, for several spectra, one thread and two.
``pair``: the whole command on a made-up pair of bfloat16 checkpoints against merely reading both
checkpoints' writers and subtracting them in float32; time and peak memory. ``lora``: the same for
an adapter of rank 32. Times are the best of several, taken in turns, since machines are shared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent
K = 20
SHAPES = {
    "qwen2.5-0.5b": {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2,
    },
    "7b": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32,
    },
    # Two layers of it, where memory and time for one matrix are to be seen.
    "7b-2-layers": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 2,
        "num_attention_heads": 32, "num_key_value_heads": 32,
    },
}  # fmt: skip


def spectrum(kind: str, rows: int, columns: int) -> torch.Tensor:
    """A weight difference [rows, columns] float32 with a spectrum of this kind."""
    generator = torch.Generator().manual_seed(rows + columns)

    def product(sigma: torch.Tensor) -> torch.Tensor:
        left = torch.linalg.qr(torch.randn(rows, len(sigma), generator=generator))[0]
        right = torch.linalg.qr(torch.randn(columns, len(sigma), generator=generator))[0]
        made: torch.Tensor = (left * sigma) @ right.T
        return made

    ranks = torch.arange(1, rows + 1).float()
    if kind.startswith("power law"):
        change = product(ranks ** -float(kind.split()[-1]))
        base = 0.02 * torch.randn(rows, columns, generator=generator)
        # As large as 2% of the weights, and rounded as checkpoints are.
        change *= 0.02 * base.norm() / change.norm()
        return (base + change).bfloat16().float() - base.bfloat16().float()
    if kind == "flat tail":
        noise = torch.randn(rows, columns, generator=generator)
        return product(1 / ranks[:8]) + noise * 0.1 / (math.sqrt(rows) + math.sqrt(columns))
    if kind == "noise":
        return torch.randn(rows, columns, generator=generator)
    return product(1 / ranks[: int(kind.removeprefix("rank "))])


def exact(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Left singular vectors and values in float64, good to 1e-8 sigma_1."""
    wide = matrix.double()
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    return vectors.flip(1), values.flip(0).clamp(min=0).sqrt()


def best(calls: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Least seconds of each call over its number of runs, taken in turns."""
    least = dict.fromkeys(calls, math.inf)
    for turn in range(max(count for _, count in calls.values())):
        for name, (call, count) in calls.items():
            if turn < count:
                start = time.perf_counter()
                call()
                least[name] = min(least[name], time.perf_counter() - start)
    return least


def bench_svd(threads: int) -> Iterator[str]:
    """Rows of the table: shape, spectrum, threads, speed-up, largest errors."""
    from builder.weights.svd import top_singular

    torch.set_num_threads(threads)
    for rows, columns in ((896, 4864), (2048, 8192)):
        large = rows > 1000
        for kind in (
            "power law 0.5", "power law 0.75", "power law 1", "power law 1.5",
            "flat tail", "noise", "rank 8", "rank 32",
        ):  # fmt: skip
            matrix = spectrum(kind, rows, columns)
            seconds = best(
                {
                    "full": (partial(torch.linalg.svd, matrix, full_matrices=False), 2 - large),
                    "ours": (partial(top_singular, matrix, K), 5 if large else 15),
                }
            )
            found = top_singular(matrix, K)
            u, sigma = exact(matrix)
            n = len(found.sigma)
            steps = torch.cat([torch.full((1,), math.inf), (sigma[:-1] - sigma[1:]).float()])
            gaps = torch.minimum(steps[:n], steps[1 : n + 1]) / sigma[:n]
            cosines = (found.u.double() * u[:, :n]).sum(0).abs()[gaps > 1e-3]
            error = float(((found.sigma - sigma[:n]).abs() / sigma[:n]).max())
            least = float(cosines.min()) if len(cosines) else 1.0
            yield (
                f"| {rows} x {columns} | {kind} | {threads} | {seconds['full'] * 1e3:,.0f} ms "
                f"| {seconds['ours'] * 1e3:,.1f} ms | {seconds['full'] / seconds['ours']:.0f} "
                f"| {1 - least:.0e} | {error:.0e} |"
            )


def make_pair(folder: Path, shape: dict[str, int]) -> None:
    """A made-up pair: random base, and a tuned model with low rank and noise added, bfloat16."""
    generator = torch.Generator().manual_seed(0)
    width, inner, layers = (
        shape[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **shape}
    for name in ("base", "tuned"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config | {"vocab_size": 1000}))
    per_file = max(1, layers // max(1, layers * width * (width + inner) * 2 // 2**31))
    for start in range(0, layers, per_file):
        base: dict[str, torch.Tensor] = {}
        tuned: dict[str, torch.Tensor] = {}
        for layer in range(start, min(layers, start + per_file)):
            for name, columns in (("self_attn.o_proj", width), ("mlp.down_proj", inner)):
                key = f"model.layers.{layer}.{name}.weight"
                weights = 0.02 * torch.randn(width, columns, generator=generator)
                low = torch.randn(width, 8, generator=generator) * 0.7 ** torch.arange(8)
                change = low @ torch.randn(8, columns, generator=generator) * 1e-4
                change += 1e-4 * torch.randn(width, columns, generator=generator)
                base[key], tuned[key] = weights.bfloat16(), (weights + change).bfloat16()
        stem = "model" if per_file >= layers else f"model-{start // per_file + 1:05d}-of-99999"
        stem = stem.replace("99999", f"{-(-layers // per_file):05d}")
        save_file(base, folder / "base" / f"{stem}.safetensors")
        save_file(tuned, folder / "tuned" / f"{stem}.safetensors")


def make_adapter(folder: Path, shape: dict[str, int], rank: int = 32) -> None:
    """An adapter of both writers of every layer, float32."""
    generator = torch.Generator().manual_seed(1)
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(shape["num_hidden_layers"]):
        for name, columns in (("self_attn.o_proj", width), ("mlp.down_proj", inner)):
            module = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, columns, generator=generator)
            tensors[f"{module}.lora_B.weight"] = torch.randn(width, rank, generator=generator)
    config = {
        "peft_type": "LORA", "r": rank, "lora_alpha": 64, "bias": "none",
        "target_modules": ["o_proj", "down_proj"], "base_model_name_or_path": "../base",
    }  # fmt: skip
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")


def read_both(folder: Path) -> None:
    """What the pair is measured against: read every writer of both, subtract in float32."""
    for path in sorted((folder / "base").glob("*.safetensors")):
        with safe_open(path, "pt") as base, safe_open(folder / "tuned" / path.name, "pt") as tuned:
            for name in base.keys():  # noqa: SIM118 (not a dict)
                tuned.get_tensor(name).float().sub_(base.get_tensor(name).float())


_MEASURED = """
import re
import torch
{body}
# Not ru_maxrss, which a process inherits from the one that started it.
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def measured(body: str, threads: int, runs: int = 3) -> tuple[float, float]:
    """Least seconds of a Python process from its start, and its median peak memory in MB."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), PYTHONPATH=str(ROOT))
    seconds, peaks = [], []
    for _ in range(runs):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED.format(body=body)],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    return min(seconds), statistics.median(peaks)


def bench_pair(folder: Path, shape: dict[str, int], threads: int, device: str) -> Iterator[str]:
    """Rows of the table: what, seconds, ratio to reading, peak memory over that of torch alone."""
    from builder.config import DirectionSettings, ModelSettings
    from builder.weights.directions import compute_directions

    torch.set_num_threads(threads)
    model = ModelSettings(base=str(folder / "base"), tuned=str(folder / "tuned"))
    plain = DirectionSettings(device=device, base_controls=0, shuffled_controls=0)
    full = DirectionSettings(device=device)
    inside = best(
        {
            "reading": (lambda: read_both(folder), 5),
            "directions without controls": (lambda: compute_directions(model, plain), 3),
            "directions": (lambda: compute_directions(model, full), 3),
        }
    )
    for name, seconds in inside.items():
        ratio = seconds / inside["reading"]
        yield f"| {name}, in one process | {threads} | {seconds:.2f} s | {ratio:.1f} | |"
    recipe = folder / "recipe.toml"
    runs = folder / f"runs{threads}"
    recipe.write_text(
        f'name = "bench"\nruns = "{runs}"\n[model]\nbase = "{folder / "base"}"\n'
        f'tuned = "{folder / "tuned"}"\n[directions]\ndevice = "{device}"\n'
    )
    alone, bare = measured("", threads)
    yield f"| start Python and import torch | {threads} | {alone:.2f} s | | {bare:.0f} MB in all |"
    reading, peak = measured(
        "import sys; sys.path.insert(0, 'bench'); from pathlib import Path; import directions\n"
        f"directions.read_both(Path({str(folder)!r}))", threads,
    )  # fmt: skip
    yield f"| reading, a process | {threads} | {reading:.2f} s | 1.0 | {peak - bare:.0f} MB |"
    command, peak = measured(
        "import shutil, contextlib, io\nfrom builder.cli import main\n"
        f"shutil.rmtree({str(runs)!r}, ignore_errors=True)\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        f"    assert main(['directions', {str(recipe)!r}]) == 0",
        threads,
    )
    ratio = command / reading
    largest = 4 * shape["hidden_size"] * shape["intermediate_size"] / 2**20
    yield (
        f"| `weightatlas directions`, a process | {threads} | {command:.2f} s | {ratio:.1f} "
        f"| {peak - bare:.0f} MB = {(peak - bare) / largest:.1f} x the largest writer in float32 |"
    )


def bench_lora(folder: Path, threads: int) -> Iterator[str]:
    """Rows of the table for an adapter."""
    from builder.config import DirectionSettings, ModelSettings
    from builder.weights.directions import compute_directions

    torch.set_num_threads(threads)
    model = ModelSettings(base=str(folder / "base"), tuned=str(folder / "adapter"))
    plain = DirectionSettings(base_controls=0, shuffled_controls=0)
    seconds = best(
        {
            "adapter without controls": (lambda: compute_directions(model, plain), 3),
            "adapter": (lambda: compute_directions(model, DirectionSettings()), 3),
        }
    )
    for name, value in seconds.items():
        yield f"| {name}, in one process | {threads} | {value:.2f} s | | |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", nargs="*", default=["svd", "pair", "lora"])
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    threads = options.threads or [1, 2]
    if "svd" in options.what:
        print("| shape | spectrum | threads | full | top 20 | times faster | 1 - cos | sigma |")
        print("|---|---|---|---|---|---|---|---|")
        for count in threads:
            for row in bench_svd(count):
                print(row, flush=True)
    if "pair" in options.what or "lora" in options.what:
        with tempfile.TemporaryDirectory() as place:
            folder, shape = Path(place), SHAPES[options.shape]
            make_pair(folder, shape)
            print("| what | threads | time | of reading | peak memory over torch |")
            print("|---|---|---|---|---|")
            for count in threads:
                rows: list[Iterator[str]] = []
                if "pair" in options.what:
                    rows.append(bench_pair(folder, shape, count, options.device))
                if "lora" in options.what:
                    if not (folder / "adapter").is_dir():
                        make_adapter(folder, shape)
                    rows.append(bench_lora(folder, count))
                for group in rows:
                    for row in group:
                        print(row, flush=True)


if __name__ == "__main__":
    main()
