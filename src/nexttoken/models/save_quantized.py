"""Quantises a base once and saves it: loading the copy takes the time of reading a quarter of the bytes."""

from pathlib import Path

from nexttoken.errors import UserError
from nexttoken.models.adapter_note import copy_licences, write_note
from nexttoken.models.base_model import identify
from nexttoken.models.load import load_model, load_tokenizer, resolve
from nexttoken.models.quantized import describe, num_weights, saved_quantization
from nexttoken.models.saved import save_whole, whole_folder
from nexttoken.settings import Settings


def save_quantized(settings: Settings, folder: Path) -> int:
    """Write the base that `settings` name, quantised as they say, with its tokenizer; return how many weights it has.

    base.json says which model it is a copy of, so that an adapter of the one is accepted on the other.
    Raises UserError where the weights are quantised already.
    """
    assert settings.quantization is not None
    spec = resolve(settings)
    if already := saved_quantization(spec.config):
        raise UserError(f"{settings.model.name_or_path} holds weights in {describe(already)} already; name whole ones")
    tokenizer = load_tokenizer(settings.model, ())
    base = identify(settings.model, tokenizer)
    quantization = settings.quantization
    model = load_model(settings.model, tokenizer, settings.max_tokens, spec.dtype, quantization, config=spec.config)
    method = describe(quantization)
    facts = {
        "made from": base.name + (f", revision {settings.model.revision}" if settings.model.revision else ""),
        "method": f"{method} (bitsandbytes) of all linear layers but the output head",
        "other weights": str(spec.dtype).removeprefix("torch."),
        "use": f"model.name_or_path={folder}",
    }
    with whole_folder(folder) as part:
        save_whole(part, model, tokenizer)
        copy_licences(settings.model, part)
        base.as_stored(method).save(part)
        write_note(part, f"{base.name} in {quantization.bits} bit", base.name, facts)
    return sum(map(num_weights, model.parameters()))
