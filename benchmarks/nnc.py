"""NNCodec, the reference software of ISO/IEC 15938-17, as the peer to measure against.

    pip install --no-deps nncodec        (its core needs NumPy alone, and a C++ compiler)
    python benchmarks/nnc.py FOLDER --csv nncodec.csv
    python benchmarks/nnc.py FOLDER --csv nncodec.csv --lambdas 0,1 --error 0.02,0.5

Rate-distortion points of every update of a folder. Only its core is imported: the rest of the
package asks for frameworks that have nothing to do with coding. Settings are those of its own
``nncodec.nn.encode`` (trellis-coded quantization, optimized context models), with a non-zero
``lambda_scale`` for decisions by rate and distortion, and all tensors at the same qp. Tensors of
fewer than 256 elements are left out of bits and error.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import importlib.util
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.files import FEWEST, Arrays, nmse, read_updates, size_of

__all__ = ["COLUMNS", "MISSING", "Settings", "available", "decode", "encode", "points"]

MISSING = "NNCodec is not installed; for it, run: pip install --no-deps nncodec"

COLUMNS = (
    "lambda",
    "qp",
    "bits_per_param",
    "nmse",
    "encode_mparam_per_s",
    "decode_mparam_per_s",
)
_START = -40
_LOWEST, _HIGHEST = -120, 20
_PERFORMANCE = ("sparsification", "pruning", "unification", "decomposition_performance_map")


@dataclass(frozen=True)
class Settings:
    """``qp``: step, four of it halve the step. ``scale``: weight of the rate, 0 to decide by
    distortion alone. ``skip``: leave out rows of zeros. ``vectors``: qp of tensors of one axis,
    None for the same; NNCodec's own default, -75, is meant for whole models.
    """

    qp: int
    scale: float = 1.0
    skip: bool = True
    vectors: int | None = None


def available() -> bool:
    """Return whether NNCodec can be imported."""
    return importlib.util.find_spec("nncodec") is not None


def encode(arrays: Arrays, settings: Settings) -> bytes:
    """Return the bitstream of float32 arrays."""
    core: Any = importlib.import_module("nncodec.nnc_core")
    model = core.nnr_model.NNRModel(arrays)
    data = core.approximator.init_approx_data(arrays, model.model_info, qp_density=2, scan_order=0)
    vectors = settings.qp if settings.vectors is None else settings.vectors
    chosen = core.approximator.ApproxInfo(
        data, model.model_info, "uniform", 0, settings.qp, False, False, 10, settings.scale,
        nonweight_qp=vectors, qp_per_tensor=None, int_quant_bw=None,
    )  # fmt: skip
    header = {
        "cabac_unary_length_minus1": 10,
        "param_opt_flag": True,
        "partial_data_counter": 0,
        "general_profile_idc": 1,
        "node_id_present_flag": 1,
        "device_id": 0,
        "mps_parent_signalling_enabled_flag": 0,
        "parent_node_id_present_flag": 0,
        "temporal_context_modeling_flag": 0,
        "row_skip_enabled_flag": int(settings.skip),
        "pre_signalling": 0,
    }
    levels = core.approximator.approx(chosen.approx_info, model.model_info, data, header)
    stream, _ = core.coder.encode(
        enc_info=header, model_info=model.model_info, approx_data=levels,
        approx_param_base=None, update_base_param=False, tool_if=None,
    )  # fmt: skip
    return bytes(stream)


def decode(stream: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a bitstream."""
    core: Any = importlib.import_module("nncodec.nnc_core")
    flags: dict[str, dict[str, int]] = {}
    for level in ("mps", "lps"):
        flags |= {f"{level}_{each}_flag": {} for each in _PERFORMANCE}
    info: dict[str, Any] = {
        "parameter_type": {},
        "parameter_dimensions": {},
        "parameter_index": {},
        "block_identifier": {},
        "topology_storage_format": None,
        "topology_compression_format": None,
        "performance_maps": {"mps": {}, "lps": {}},
        "performance_map_flags": flags,
    }
    data = core.coder.decode(
        bytearray(stream), info, hls_stats={}, oob_dict={}, approx_param_base=None,
        update_base_param=False, return_hls=False, tool_if=None,
    )  # fmt: skip
    core.approximator.rec(data)
    decoded: dict[str, NDArray[np.float32]] = core.approximator.recompose_params(info, data)[
        "parameters"
    ]
    return decoded


def points(
    arrays: Arrays,
    scale: float,
    error: tuple[float, float],
    stride: int = 2,
    skip: bool = True,
    vectors: int | None = None,
) -> Iterator[dict[str, float]]:
    """Yield points whose NMSE spans ``error``, one beyond it at either end, ascending in qp."""
    chosen = {name: each for name, each in arrays.items() if each.size >= FEWEST}
    found: dict[int, dict[str, float]] = {}

    def at(qp: int) -> float:
        if qp not in found:
            found[qp] = _point(chosen, Settings(qp, scale, skip, vectors))
        return found[qp]["nmse"]

    low, high = error
    qp = _START
    while at(qp) > low and qp > _LOWEST:
        # Far away, the error tells how far: it grows fourfold for every halving of the step.
        qp -= 16 if at(qp) > 0.99 else stride
    while at(qp) < high and qp < _HIGHEST:
        qp += 16 if at(qp) < low / 100 else stride
    yield from (found[each] for each in sorted(found) if found[each]["nmse"] < 0.99)


def _point(arrays: Arrays, settings: Settings) -> dict[str, float]:
    size = size_of(arrays)
    started = time.process_time()
    stream = encode(arrays, settings)
    encoded = time.process_time()
    decoded = decode(stream)
    done = time.process_time()
    return {
        "lambda": settings.scale,
        "qp": settings.qp,
        "bits_per_param": round(8 * len(stream) / size, 5),
        "nmse": round(nmse(arrays, decoded), 6),
        "encode_mparam_per_s": round(size / (encoded - started) / 1e6, 2),
        "decode_mparam_per_s": round(size / (done - encoded) / 1e6, 2),
    }


def main() -> None:
    arguments = _arguments()
    if not available():
        raise SystemExit(MISSING)
    with arguments.csv.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", *COLUMNS])
        writer.writeheader()
        for update in read_updates(arguments.folder):
            for scale in arguments.lambdas:
                for point in points(
                    update.arrays,
                    scale,
                    arguments.error,
                    arguments.stride,
                    skip=not arguments.plain,
                    vectors=-75 if arguments.plain else None,
                ):
                    writer.writerow({"file": update.name, **point})
                    print(update.name, *(point[each] for each in COLUMNS), flush=True)
                stream.flush()


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(each) for each in text.split(","))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    parser.add_argument("folder", type=Path, help="with the updates")
    parser.add_argument("--csv", type=Path, required=True, help="where to write the points")
    parser.add_argument("--lambdas", type=_numbers, default=(1.0,), help="separated by commas")
    parser.add_argument("--error", type=_numbers, default=(0.02, 0.5), help="NMSE to span")
    parser.add_argument("--stride", type=int, default=2, help="from one qp to the next")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="rows of zeros are coded and vectors take qp -75, the defaults of nnc.compress; "
        "costs up to 1.5%% on dense updates and more on sparse ones",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
