"""The memory plan against models that are really built and really run."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Gemma2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config

import nexttoken.engine.memory_plan.make as plan_module
from nexttoken.commands.plan import main as plan_command
from nexttoken.data.checked_settings import check_settings
from nexttoken.engine.memory_plan.advice import LORA, NF4
from nexttoken.engine.memory_plan.dry_run import Skeleton, Step, count_pass, count_step, cut_layers, step_bytes
from nexttoken.engine.memory_plan.make import make_plan, optimizer_bytes, repeated_keys_bytes
from nexttoken.engine.memory_plan.table import MemoryPlan, Part, in_units
from nexttoken.models.adapters import add_adapter
from nexttoken.models.device_sheets import SHEETS
from nexttoken.models.load import load_config, resolve
from nexttoken.models.precision import fast_dtype
from nexttoken.settings import Settings
from support.commands import refusal, status_of
from support.composed import composed

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SHAPE = {"vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, intermediate_size=344, num_key_value_heads=2),
    "qwen2": Qwen2Config(**SHAPE, intermediate_size=256, num_key_value_heads=2, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**SHAPE, intermediate_size=512, num_key_value_heads=2, head_dim=32),
    "gpt_neox": GPTNeoXConfig(**SHAPE, intermediate_size=512),
}


@pytest.fixture(autouse=True)
def _in_repository(repository, monkeypatch):
    monkeypatch.chdir(repository)


@cache
def settings_of(*overrides: str) -> Settings:
    pretrained = ("model.name_or_path=somewhere", "max_tokens=128", "batch_tokens=512")
    return check_settings(Settings, composed(*pretrained, *overrides))


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def test_parameters_and_weights_are_those_of_the_model(config):
    plan, model = make_plan(resolve(settings_of(), config, CPU)), AutoModelForCausalLM.from_config(config)
    assert plan.num_parameters == plan.num_trainable == sum(p.numel() for p in model.parameters())
    assert plan.size("weights") == plan.size("gradients") == 4 * plan.num_parameters
    assert plan.size("optimizer") == 8 * plan.num_parameters


@pytest.mark.parametrize("change", ["adapter.dora=true", "adapter.target_modules='.*(dense|q_proj)'"])
def test_the_adapter_is_what_peft_adds(config, change):
    settings = settings_of("adapter=lora", change)
    plan, model = make_plan(resolve(settings, config, CPU)), AutoModelForCausalLM.from_config(config)
    adapted = add_adapter(model, settings.adapter)
    assert plan.num_trainable == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert plan.size("adapter") == plan.size("gradients") == 4 * plan.num_trainable
    assert plan.size("optimizer") == 8 * plan.num_trainable


@pytest.mark.parametrize("change", ["nf4", "nf4 quantization.double=false", "int8"])
def test_quantised_weights_are_what_bitsandbytes_stores(config, change, tmp_path):
    settings = settings_of("adapter=lora", *f"quantization={change}".split())
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    quantization = settings.quantization
    four_bit = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": quantization.double,
        "bnb_4bit_compute_dtype": torch.float32,
    }
    asked = BitsAndBytesConfig(**(four_bit if quantization.bits == 4 else {"load_in_8bit": True}))
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=asked, dtype=torch.float32, device_map={"": "cpu"}
    )
    assert make_plan(resolve(settings, config, CPU)).size("weights") == sum(map(bytes_of, model.parameters()))


def bytes_of(parameter) -> int:
    """A parameter with everything that bitsandbytes keeps beside it."""
    beside = [getattr(parameter, "SCB", None)]
    if state := getattr(parameter, "quant_state", None):
        beside += [state.absmax, state.code, state.offset]
        beside += [state.state2.absmax, state.state2.code] if state.nested else []
    return sum(tensor.nbytes for tensor in (parameter.data, *beside) if tensor is not None)


@pytest.mark.parametrize(("adapter", "shape"), [("none", (2, 128)), ("none", (4, 256)), ("lora", (4, 256))], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_of_a_real_step(config, shape, adapter, checkpointing):
    settings = settings_of(f"adapter={adapter}", f"fit.gradient_checkpointing={checkpointing}")
    planned = step_bytes(Skeleton(settings, config, torch.float32), Step(*shape, True, False, False))
    model = real_model(config, settings)
    counted = count_pass(model, torch.zeros(shape, dtype=torch.long))
    assert 0.95 * counted.peak <= planned <= 1.25 * counted.peak  # a mask is drawn that the real run can do without
    if not checkpointing:  # torch's own count of what it keeps: the peak is little more
        assert 0.6 * planned < saved_bytes(model, shape) < 1.05 * planned


def real_model(config, settings):
    model = AutoModelForCausalLM.from_config(config)
    if settings.adapter:
        model = add_adapter(model, settings.adapter)
    if settings.fit.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def saved_bytes(model, shape) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    sizes, kept = {}, []

    def pack(tensor):
        kept.append(tensor)  # so that no address is used twice
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=torch.zeros(shape, dtype=torch.long), use_cache=False)
    return sum(size for address, size in sizes.items() if address not in own)


def test_deep_models_are_extrapolated_exactly():
    deep = LlamaConfig(**SHAPE | {"num_hidden_layers": 7}, intermediate_size=344)
    for change in ("false", "true"):
        settings = settings_of("adapter=lora", f"fit.gradient_checkpointing={change}")
        step = Step(2, 256, training=True, mixed=True, on_gpu=True)
        whole = step_bytes(Skeleton(settings, deep, torch.bfloat16), step)
        assert whole == count_step(Skeleton(settings, deep, torch.bfloat16), 7, step).peak


def test_logits_of_whole_texts_are_planned_in_pieces():
    """More rows have more layers' activations; of their logits as many stand there at once as of a few."""
    wide = LlamaConfig(**SHAPE | {"vocab_size": 2**16}, intermediate_size=344)
    skeleton = Skeleton(settings_of("adapter=lora", "fit.text_epochs=1"), wide, torch.float32)
    two, four = (step_bytes(skeleton, Step(rows, 1024, True, False, False)) for rows in (2, 4))
    assert four - two < 2 * 1024 * 2**16 * 4


def test_prediction_needs_one_layer_at_a_time():
    settings = settings_of("trainer.max_epochs=0")
    plans = [make_plan(resolve(settings, cut_layers(CONFIGS["llama"], depth), CPU)) for depth in (2, 3)]
    assert [part.name for part in plans[0].parts] == ["weights", "activations"]
    assert plans[0].size("activations") == plans[1].size("activations")


def test_a_classifier_has_no_vocabulary_to_score():
    heads = ("label", "classification")
    label, classes = (make_plan(resolve(settings_of(f"head={head}"), CONFIGS["llama"], CPU)) for head in heads)
    labels = len(settings_of().prompt["labels"])
    assert label.num_parameters - classes.num_parameters == (512 - labels) * 128


def test_eight_bit_states_are_a_quarter_of_large_tensors():
    large, small = torch.empty(256, 256, device="meta"), torch.empty(4095, device="meta")
    assert optimizer_bytes("adamw_8bit", [large, small]) == 2 * (65536 + 4 * 256) + 8 * 4095


def test_a_moving_average_is_a_copy_of_what_is_trained():
    spec = resolve(settings_of("fit.ema=0.99", "adapter=lora"), CONFIGS["llama"], CPU)
    plan, without = make_plan(spec), make_plan(spec.change(fit=spec.settings.fit.model_copy(update={"ema": 0.0})))
    assert plan.size("moving average") == 4 * plan.num_trainable > 0
    assert plan.needed - without.needed == plan.size("moving average")


def test_planning_leaves_the_random_numbers_alone():
    before = torch.random.get_rng_state()
    make_plan(resolve(settings_of("adapter=lora"), CONFIGS["llama"], CPU))
    assert torch.equal(before, torch.random.get_rng_state())


BIG = LlamaConfig(**SHAPE | {"num_hidden_layers": 6, "hidden_size": 512}, intermediate_size=1376)


def plan_with(free_mib: float, monkeypatch, *overrides: str, config=BIG) -> MemoryPlan:
    monkeypatch.setattr(plan_module, "free_memory", lambda device: int(free_mib * 2**20))
    return make_plan(resolve(settings_of(*overrides), config, GPU))


def needed(*overrides: str) -> int:
    return plan_module.plan_parts(resolve(settings_of(*overrides), BIG, GPU)).needed


@pytest.mark.slow
def test_what_is_advised_fits_and_nothing_less_does(monkeypatch):
    share = 0.1
    whole = needed() / 2**20
    plan = plan_with(share * whole, monkeypatch)
    assert not plan.fits
    assert plan.advice
    again = plan_with(share * whole, monkeypatch, *plan.advice)
    assert again.fits
    assert again.needed == plan.least
    for left_out in plan.advice:
        fewer = [change for change in plan.advice if change != left_out]
        if left_out != "adapter=lora" or "quantization=nf4" not in fewer:
            assert needed(*fewer) > share * whole * 2**20


def test_the_cheapest_change_comes_first(monkeypatch):
    whole = needed() / 2**20
    assert plan_with(0.99 * whole, monkeypatch).advice == ("fit.gradient_checkpointing=true",)


def test_nothing_fits_a_thimble(monkeypatch):
    plan = plan_with(1, monkeypatch)
    assert plan.advice is None
    assert plan.table().endswith(f"no settings would fit, the least is {in_units(plan.least)}: take a smaller model")


def test_the_advised_groups_are_those_of_conf():
    settings = settings_of("adapter=lora", "quantization=nf4")
    assert (settings.adapter, settings.quantization) == (LORA, NF4)


def test_the_table_says_what_fits():
    parts = (Part("weights", 3 * 2**30, "bfloat16"), Part("activations", 200 * 2**20))
    plan = MemoryPlan("cuda", 8 * 2**30, 1_600_000_000, 0, (4, 2048), parts)
    assert plan.table().splitlines() == [
        "plan for cuda: 1,600,000,000 parameters, none of them trained, batches of 4 x 2048 tokens",
        "weights        3.0 GiB  bfloat16",
        "activations    200 MiB",
        "needs about 3.2 GiB of 8.0 GiB: fits",
    ]
    short = replace(plan, free=2**30, advice=("batch_tokens=2048",), least=2**29)
    assert short.table().splitlines()[-1] == (
        "needs about 3.2 GiB, 1.0 GiB are free; these settings would fit in 512 MiB: batch_tokens=2048"
    )
    assert "unknown" in replace(plan, free=None).table()
    assert not replace(plan, parts=(Part("activations", None),)).fits


def test_the_scratch_model_has_an_architecture():
    settings = check_settings(Settings, composed())
    config = load_config(settings.model, settings.max_tokens)
    assert (config.vocab_size, config.num_hidden_layers) == (1024, 3)


def command(*arguments: str, code: str = "") -> subprocess.CompletedProcess:
    start = ["-c", code] if code else ["-m", "nexttoken", "plan"]
    return subprocess.run([sys.executable, *start, *arguments], capture_output=True, text=True, env={**os.environ})


def test_the_command_prints_the_plan_of_a_folder(tmp_path, capsys):
    CONFIGS["qwen2"].save_pretrained(tmp_path)  # config.json alone: no weights are asked for
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2"
    given = (f"model.name_or_path={tmp_path}", "adapter=lora", "fit.gradient_checkpointing=true")
    assert status_of("plan", given) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("plan for c")
    assert "needs about" in last


def test_a_probe_trains_no_weight_and_a_run_begins_with_its_own(tmp_path, capsys):
    own = LlamaConfig(**SHAPE, intermediate_size=344, num_key_value_heads=2)
    own.save_pretrained(fold := tmp_path / "run" / "fold0" / "model")
    (fold.parent / "metrics.json").write_text("{}")
    (fold.parent / "config.yaml").write_text("model: {name_or_path: null}")
    plan_command(["head=probe", f"model.name_or_path={fold}", "max_tokens=128", "batch_tokens=512"])
    assert "gradients" not in capsys.readouterr().out
    plan_command([f"model.from_run={tmp_path / 'run'}", "fold=0", "max_tokens=128", "batch_tokens=512"])
    number = make_plan(resolve(settings_of(), own, CPU)).num_parameters
    assert f"{number:,}" in capsys.readouterr().out


def test_the_command_refuses_in_one_line(capsys):
    assert "batch_tokens" in refusal(capsys, "plan", "batch_token=3")


def test_help_needs_no_torch():
    code = "import sys; sys.argv = ['x', 'plan', '--help']; import nexttoken.__main__ as door; door.main();"
    done = command(code=code + "print('torch' in sys.modules)")
    assert done.stdout.splitlines()[-1] == "False"
    assert "python -m nexttoken plan" in done.stdout


@pytest.mark.parametrize(
    ("changed", "is_aside"),
    [
        (("trainer.precision=32-true",), True),
        (("trainer.precision=bf16-mixed",), False),
        (("trainer.precision=32-true", "fit.gradient_checkpointing=true"), False),
        (("trainer.precision=32-true", "fit.neftune_alpha=5"), False),
    ],
)
def test_batches_are_planned_side_by_side_where_they_are_learnt_so(changed, is_aside):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        plan = make_plan(resolve(settings_of("adapter=lora", *changed), CONFIGS["llama"], CPU))
    finally:
        torch.set_num_threads(threads)
    (activations,) = (part for part in plan.parts if part.name == "activations")
    assert ("2 batches at once" in activations.note) == is_aside


GROUPED = LlamaConfig(**SHAPE | {"num_attention_heads": 8}, intermediate_size=344, num_key_value_heads=2)


@pytest.mark.parametrize(("name", "dtype"), [("t4", "float16"), ("a100", "bfloat16")])
def test_a_run_is_planned_for_a_gpu_that_is_not_here(name, dtype):
    spec = resolve(settings_of("adapter=lora"), GROUPED, sheet=SHEETS[name])
    plan = make_plan(spec)
    assert (plan.device, plan.free, spec.dtype) == (name, SHEETS[name].free, getattr(torch, dtype))
    assert make_plan(spec.change(max_tokens=64)).device == name


@pytest.mark.parametrize(("checkpointing", "layers"), [("false", 3), ("true", 1)])
def test_keys_repeated_on_an_older_gpu_are_planned(checkpointing, layers):
    """Six of eight heads get keys and values of their own: 16 numbers of 2 bytes a token, in 4 rows of 128."""
    settings = settings_of("adapter=lora", f"fit.gradient_checkpointing={checkpointing}")
    old, new = (resolve(settings, GROUPED, sheet=SHEETS[name]) for name in ("t4", "a100"))
    assert repeated_keys_bytes(old) == 2 * layers * 6 * 16 * 4 * 128 * 2
    assert repeated_keys_bytes(new) == 0
    assert make_plan(old).size("activations") - make_plan(new).size("activations") == repeated_keys_bytes(old)


@pytest.mark.parametrize(
    "architecture", ["gemma3_text", "gemma4", "gemma2", "phi", "gpt_oss", "llama", "qwen2", "phi3"]
)
def test_architectures_that_overflow_float16_are_computed_in_float32_on_older_gpus(architecture):
    dtype = torch.float16 if architecture in ("llama", "qwen2", "phi3") else torch.float32
    assert fast_dtype(architecture, SHEETS["t4"]) == dtype
    assert fast_dtype(architecture, SHEETS["a100"]) == torch.bfloat16


@pytest.mark.slow
def test_the_command_knows_every_sheet(tmp_path):
    CONFIGS["qwen2"].save_pretrained(tmp_path)
    done = command(f"model.name_or_path={tmp_path}", "adapter=lora", "device=t4")
    assert done.stdout.splitlines()[0].startswith("plan for t4: ")
    assert done.stdout.splitlines()[-1].endswith("of 14.6 GiB: fits")
    assert "device=tpu is not known; known: a100, " in command("device=tpu").stderr
