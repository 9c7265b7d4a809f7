"""Packed weights as other tools save them (GPTQ, AWQ, AutoRound, compressed-tensors), and their values.

A weight is (code - zero point) * scale. Several codes of 2, 4 or 8 bits share an int32; a group of neighbouring inputs
shares a zero point and a scale.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nexttoken.errors import UserError

BITS = (2, 4, 8)  # codes that fill an int32 without a rest
MAX_GROUP = 1024  # inputs of a group up to which a group's rows are unpacked at a time
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # place in an int32 of each of eight neighbouring outputs, for its fast kernel
NAMES = {  # the tensors of a layer, by the one that holds its codes
    "qweight": ("qweight", "qzeros", "scales", "g_idx"),
    "weight_packed": ("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape"),
    "weight": ("weight", "weight_scale", "weight_zero_point"),
}
METHODS = {"gptq", "awq", "auto-round", "compressed-tensors"}
Rows = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Values:
    """A weight's values: `rows(start, end)` returns float32 rows of a matrix (size, ...), cut at multiples of `step`.

    Rows are outputs, or inputs where the matrix `is_transposed`.
    """

    rows: Rows
    size: int
    step: int
    is_transposed: bool


def is_packed(config: Any) -> bool:
    """True for weights that GPTQ, AWQ, AutoRound or compressed-tensors packed."""
    saved = getattr(config, "quantization_config", None)
    return isinstance(saved, dict) and str(saved.get("quant_method")) in METHODS


def packing_of(saved: Mapping[str, Any]) -> str:
    """`gptq`, `gptq_v2`, `awq` or `compressed`, by the `quantization_config` of a config.json.

    Raises UserError for a layout that is not read.
    """
    method = str(saved["quant_method"])
    if method == "compressed-tensors":
        return "compressed"
    if method == "awq":
        kind = str(saved.get("version", "gemm")).lower()
        known = {"gemm": "awq"}
    elif method == "auto-round":  # its names in export_to_autoround: only auto_gptq stores zero points minus 1
        kind = str(saved.get("packing_format", "auto_round:auto_gptq")).removeprefix("auto_round:")
        known = {"auto_gptq": "gptq", "auto_awq": "awq", "auto_round": "gptq_v2", "gptqmodel": "gptq_v2"}
    else:
        kind = str(saved.get("checkpoint_format") or saved.get("format") or "gptq")
        known = {"gptq": "gptq", "gptq_v2": "gptq_v2"}
    if kind not in known:
        raise UserError(f"weights in {method} with the layout {kind!r} are not read, expected {' or '.join(known)}")
    return known[kind]


def stored_bits(config: Any) -> float | None:
    """Bits that a packed weight takes, with its share of scales and zero points; None for weights that are not packed.

    Where the configuration does not name bits and groups, 4 and 128 are assumed, as most tools have them.
    """
    if not is_packed(config):
        return None
    saved = config.quantization_config
    groups = saved.get("config_groups") or {}
    named = next((group.get("weights") or {} for group in groups.values()), saved)
    bits, group_size = (named.get(key) for key in ("num_bits" if groups else "bits", "group_size"))
    bits, group_size = int(bits or 4), int(group_size or (-1 if groups else 128))
    return bits + (16 + bits) / group_size if group_size > 0 else float(bits)


def read_values(tensors: Mapping[str, Tensor], packing: str, num_inputs: int, num_outputs: int) -> Values:
    """The values of a layer (num_outputs, num_inputs) from its saved tensors.

    Raises UserError for shapes that do not fit, and for codes of other bits than BITS.
    """
    if "qweight" not in tensors:
        return _compressed(tensors, num_inputs, num_outputs)
    reader = _awq if packing == "awq" else _gptq
    return reader(tensors, packing == "gptq", num_inputs, num_outputs)


def _gptq(tensors: Mapping[str, Tensor], is_minus_one: bool, num_inputs: int, num_outputs: int) -> Values:
    """GPTQ: codes are packed along the inputs, zero points along the outputs.

    Its first layout stores zero points minus 1, subtracted from whole int32s. `g_idx` names each input's group, in any
    order (act-order). Source: AutoGPTQ and GPTQModel, nn_modules/qlinear/torch.py and utils/model.py.
    """
    codes, bits = tensors["qweight"], _bits(tensors["qweight"].shape[0], num_inputs)
    zeros = tensors["qzeros"] + (sum(1 << place for place in range(0, 32, bits)) if is_minus_one else 0)
    zeros, per_word = _unpack_columns(zeros, _places(bits, zeros), bits), 32 // bits

    def unpack(start: int, end: int) -> Tensor:
        words = codes[start // per_word : end // per_word]
        return ((words[:, None] >> _places(bits, words)[:, None]) & (2**bits - 1)).flatten(0, 1)

    return _by_inputs(unpack, zeros, tensors["scales"], tensors.get("g_idx"), (num_inputs, num_outputs), per_word)


def _awq(tensors: Mapping[str, Tensor], _: bool, num_inputs: int, num_outputs: int) -> Values:
    """AWQ (gemm): codes and zero points are packed along the outputs, in the order AWQ_ORDER.

    Source: AutoAWQ and GPTQModel, quantization/awq/utils/packing_utils.py.
    """
    codes = tensors["qweight"]
    _require(_bits(codes.shape[1], num_outputs) == 4 and codes.shape[0] == num_inputs)
    places = 4 * torch.tensor(AWQ_ORDER, dtype=torch.int32, device=codes.device)
    zeros = _unpack_columns(tensors["qzeros"], places, 4)

    def unpack(start: int, end: int) -> Tensor:
        return _unpack_columns(codes[start:end], places, 4)

    return _by_inputs(unpack, zeros, tensors["scales"], None, (num_inputs, num_outputs))


def _by_inputs(
    unpack: Rows, zeros: Tensor, scales: Tensor, groups: Tensor | None, shape: tuple[int, int], step: int = 1
) -> Values:
    """Values whose rows are inputs; `zeros` and `scales` (groups, outputs), `groups` as in `_group_size`."""
    _require(scales.shape == zeros.shape == (len(scales), shape[1]))
    size = _group_size(groups, shape[0], len(scales))
    size = 0 if size % step or size > MAX_GROUP else size
    index = _even(shape[0], len(scales), zeros) if groups is None else groups.long()
    zeros, scales = zeros.float(), scales.float()

    def rows(start: int, end: int) -> Tensor:
        codes = unpack(start, end).float()
        if not size:
            return codes.sub_(zeros[index[start:end]]).mul_(scales[index[start:end]])
        own = slice(start // size, end // size)
        return codes.unflatten(0, (-1, size)).sub_(zeros[own, None]).mul_(scales[own, None]).flatten(0, 1)

    return Values(rows, shape[0], size or step, is_transposed=True)


def _compressed(tensors: Mapping[str, Tensor], num_inputs: int, num_outputs: int) -> Values:
    """compressed-tensors: signed codes, one a byte, or (pack-quantized) packed along the inputs with an offset.

    Scales (num_outputs, groups), or one for all outputs. Zero points are signed, and packed along the outputs with the
    same offset. Float codes (8 bits) are read, too. Source: compressors/pack_quantized and naive_quantized.
    """
    codes = tensors.get("weight_packed", tensors.get("weight"))
    assert codes is not None
    is_packed = "weight_packed" in tensors
    bits = _bits(codes.shape[1], num_inputs) if is_packed else 8
    offset = 2 ** (bits - 1)
    scales, zeros = tensors["weight_scale"].float(), tensors.get("weight_zero_point")
    scales = scales.reshape(len(scales) if scales.ndim else 1, -1).expand(num_outputs, -1)
    if zeros is not None and zeros.dtype == torch.int32:
        zeros = _unpack_columns(zeros.T, _places(bits, zeros), bits).T[:num_outputs] - offset
    zeros = torch.zeros_like(scales[:, :1]) if zeros is None else zeros.float().reshape(-1, scales.shape[1])
    zeros, groups = zeros.expand_as(scales), tensors.get("weight_g_idx")
    _require(len(codes) == num_outputs and (is_packed or codes.shape[1] == num_inputs))
    size = _group_size(groups, num_inputs, scales.shape[1])

    def rows(start: int, end: int) -> Tensor:
        own = _unpack_columns(codes[start:end], _places(bits, codes), bits) - offset if is_packed else codes[start:end]
        zero, scale = zeros[start:end], scales[start:end]
        if not size:
            index = groups.long()  # type: ignore[union-attr]
            return (own.float() - zero.index_select(1, index)) * scale.index_select(1, index)
        return own.float().unflatten(1, (-1, size)).sub_(zero[:, :, None]).mul_(scale[:, :, None]).flatten(1)

    return Values(rows, num_outputs, 1, is_transposed=False)


def _unpack_columns(words: Tensor, places: Tensor, bits: int) -> Tensor:
    """Codes (R, C * 32 / bits) of int32s (R, C), whose neighbours begin at these places of an int32."""
    return ((words[:, :, None] >> places) & (2**bits - 1)).flatten(1)


def _places(bits: int, like: Tensor) -> Tensor:
    return torch.arange(0, 32, bits, dtype=torch.int32, device=like.device)


def _group_size(groups: Tensor | None, num_inputs: int, num_groups: int) -> int:
    """The number of neighbouring inputs that share a scale; 0 where `groups` (each input's) has another order."""
    size, rest = divmod(num_inputs, num_groups)
    _require(not rest if groups is None else len(groups) == num_inputs)
    if groups is None:
        return size
    is_even = not rest and not groups.is_meta and bool((groups == _even(num_inputs, num_groups, groups)).all())
    return size if is_even else 0


def _even(num_inputs: int, num_groups: int, like: Tensor) -> Tensor:
    return torch.arange(num_inputs, device=like.device) // (num_inputs // num_groups)


def _bits(num_words: int, num_codes: int) -> int:
    bits, rest = divmod(32 * num_words, num_codes)
    if rest or bits not in BITS:
        raise UserError(f"{num_codes} weights are packed in {num_words} int32s; only 2, 4 and 8 bits are read")
    return bits


def _require(fits: bool) -> None:
    if not fits:
        raise UserError("the saved codes, zero points and scales do not fit together; give a complete checkpoint")
