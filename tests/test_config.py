"""Every YAML that is shipped composes, builds its parts, and belongs to a configuration that the settings accept."""

import pytest
from hydra.errors import HydraException

from nexttoken.build import Parts, build, prepare
from nexttoken.data.checked_settings import check_settings
from nexttoken.data.run_names import default_name
from nexttoken.errors import UserError
from nexttoken.inference.candidates import Candidates
from nexttoken.settings import PredictSettings
from support.composed import CONF, composed, config_of

CHOICES = sorted(path for path in CONF.glob("*/*.yaml") if path.parent.name != "engine")  # of predict.py
CONTEXTS = [  # every choice fits into one of these at least
    [],
    *([f"task={task}"] for task in ("lmsys", "quiz", "marks", "instruct", "dialogue")),
    ["task=quiz", "retriever=bm25"],
    ["task=instruct", "retriever=bm25"],
    ["model=smollm2_135m"],
    ["model=smollm2_135m", "adapter=lora"],
    ["task=quiz", "retriever.path=RECORDED"],
    ["split.column=genre"],
    ["trainer.max_epochs=0"],
]


def build_in_some_context(choice: str, recorded: str) -> Parts:
    """The context that fitted last is tried first: neighbours often need the same one, and composing takes long."""
    refusals = []
    for context in [*CONTEXTS]:
        needs = [override.replace("RECORDED", recorded) for override in context]
        group = choice.partition("=")[0]
        try:
            others = [override for override in needs if override.partition("=")[0] != group]
            parts = build({**composed(choice, *others), "name": "x"})
        except (UserError, HydraException) as error:
            refusals.append(str(error))
        else:
            CONTEXTS.remove(context)
            CONTEXTS.insert(0, context)
            return parts
    raise AssertionError(f"{choice} fits into no context: {refusals}")


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_choice_composes_and_builds(path, monkeypatch, tmp_path):
    recorded = tmp_path / "passages.jsonl"
    recorded.write_text('{"query": "who?", "passages": ["they"]}\n', encoding="utf-8")
    monkeypatch.setenv("GOOGLE_API_KEY", "a key")
    monkeypatch.setenv("GOOGLE_SEARCH_ENGINE_ID", "an engine")
    monkeypatch.chdir(CONF.parent)
    choice = f"{path.parent.name}={path.stem}"
    parts = build_in_some_context(choice, str(recorded))
    has_candidates = isinstance(parts.inference, Candidates)  # each read by its own text
    assert len(parts.prompt.labels) == (0 if has_candidates else len(parts.task.classes))


def test_another_head_takes_the_place_of_a_task_s_own():
    listed = composed("task=map", "head=label", "prompt.labels=letters")
    assert listed["head"] == composed("head=label")["head"]
    assert composed("task=map")["head"]["score"] == "text"


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_starts_with_the_command_that_runs_it(path):
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert first == "# @package _global_"
    assert second.startswith("# python train.py ")
    assert f"experiment={path.stem}" in second


@pytest.mark.parametrize("path", sorted(CONF.glob("engine/*.yaml")), ids=lambda path: path.stem)
def test_every_engine_can_be_chosen_at_prediction(path):
    settings = check_settings(PredictSettings, composed(f"engine={path.stem}", name="predict"))
    assert settings.engine["_target_"] == f"nexttoken.engine.answerers.load_{path.stem}_writer"


def test_prediction_settings():
    settings = check_settings(PredictSettings, composed(name="predict"))
    assert settings.run is None
    assert settings.submissions_dir == "submissions"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["fold=5"], "fold=5 does not exist: split.num_folds=5, so folds are 0 to 4"),
        (["split.num_folds=10", "fold=10"], "fold=10 does not exist: split.num_folds=10"),
        (["+fit.learning_rte=1"], "unknown key 'fit.learning_rte'; did you mean 'learning_rate'?"),
        (["fit.learning_rate=0"], "fit.learning_rate=0 is not accepted: input should be greater than 0"),
        (["limit_rows=true"], "limit_rows=true is not accepted: expected a number"),
        (["trainer.devices=true"], "trainer.devices=true is not accepted: expected a number"),
        (["fit.optimizer=sgd"], "fit.optimizer='sgd' is not accepted"),
        (["head._target_=torch.load"], "head._target_='torch.load' is refused"),
        (["task._target_=os.system"], "task._target_='os.system' is refused"),
        (["+trainer.plugins={_target_: torch.load}"], "trainer.plugins._target_='torch.load' is refused"),
        (["prompt.labels=[A,B]"], "do not match the task's classes"),
        (["+prompt.lables=[A]"], "unexpected keyword argument 'lables'"),
        (["prompt.cut_at=2"], "prompt.cut_at=2 is not accepted"),
        (["split.dev_fraction=0.9"], "split.dev_fraction is 0.9"),
        (["trainer.max_epochs=-1"], "trainer.max_epochs=-1 is not accepted"),
        (["trainer.precision=bf16-true"], "trainer.precision='bf16-true' is not accepted"),
        (["adapter=lora"], "adapter=lora needs a pretrained base"),
        (["task=quiz", "inference=swap_averaged"], "needs pairs, and the task's examples are not pairs"),
        (["task=quiz", "train_transforms=both_orders"], "needs pairs, and the task's examples are not pairs"),
        (["inference=rotated"], "needs options"),
        (["task=quiz", "prompt=instruction"], "needs shown options, and this prompt shows none"),
        (["prompt=quiz"], "have no options; use prompt=instruction"),
        (["inference=retrieval"], "needs options"),
        (["train_transforms=options"], "needs options"),
        (["task=quiz", "inference=gated_retrieval"], "needs passages, and retriever=none finds none"),
        (["task=quiz", "inference=retrieval"], "needs passages, and retriever=none finds none"),
        (["task=quiz", "task.num_options=201"], "task.num_options=201: expected a whole number from 2 to 200"),
        (
            [
                "task=quiz",
                "retriever=bm25",
                "inference=few_shot",
                "inference.ask._target_=nexttoken.inference.ConfidenceGated",
                "+inference.ask.search=${search}",
            ],
            "a gate inside another way of inference",
        ),
        (["quantization=nf4"], "quantization needs a pretrained model"),
        (["model=smollm2_135m", "quantization=nf4"], "quantised weights cannot be trained; add adapter=lora (QLoRA)"),
        (["model=smollm2_135m", "adapter=lora", "adapter.init=loftq"], "add quantization=nf4 or use another init"),
        (
            ["model=smollm2_135m", "adapter=lora", "quantization=int8", "adapter.dora=true"],
            "adapter.dora=true fails on 8-bit weights",
        ),
        (
            ["model=smollm2_135m", "adapter=lora", "quantization=nf4", "adapter.init=orthogonal"],
            "adapter.init=orthogonal takes its dtype",
        ),
        (["model=smollm2_135m", "adapter=lora", "adapter.r=0"], "adapter.r=0 is not accepted"),
        (["model=smollm2_135m", "adapter=lora", "+adapter.rank=8"], "unknown key 'adapter.rank'"),
        (["head=classification", "trainer.max_epochs=0"], "cannot answer with trainer.max_epochs=0"),
        (["head=classification", "fit.text_epochs=1"], "head=classification has no output for words"),
        (["+trainer.accumulate_grad_batches=4"], "use fit.batch_size for a step's rows, and batch_tokens"),
        (["+trainer.gradient_clip_val=1"], "use fit.max_grad_norm"),
        (["+trainer.gradient_clip_algorithm=value"], "use fit.max_grad_norm"),
        (["+trainer.max_steps=9"], "use trainer.max_epochs"),
        (["+trainer.callbacks=[]"], "trainer.callbacks is no option of this training"),
        (["+trainer.logger=true"], "use logger="),
        (["+trainer.precison=32-true"], "trainer.precison is no option of this training; did you mean 'precision'"),
        (["trainer.precision=bf16"], "trainer.precision='bf16' is not accepted"),
        (["trainer.accelerator=tpu"], "trainer.accelerator='tpu' is not accepted"),
        (["+trainer.profiler=nope"], "trainer.profiler='nope' is not accepted"),
        (
            ["trainer.strategy=deepspeed_stage_3"],
            "DeepSpeed fixes the number of batches in a step",
        ),
        (["trainer.strategy=ddp_spawn"], "input should be 'auto', 'ddp' or 'fsdp'"),
        (["trainer.strategy=fsdp"], "add trainer.devices=2 or more"),
        (
            ["model=smollm2_135m", "adapter=lora", "quantization=nf4", "trainer.strategy=fsdp", "trainer.devices=2"],
            "cannot shard the packed weights",
        ),
        (["trainer.strategy=fsdp", "trainer.devices=2", "head=classification"], "use head=label"),
        (["trainer.strategy=fsdp", "trainer.devices=2", "fit.optimizer=adamw_8bit"], "use fit.optimizer=adamw"),
        (["trainer.strategy=fsdp", "trainer.devices=2", "trainer.precision=16-mixed"], "no scaled float16"),
        (
            ["model=smollm2_135m", "adapter=lora", "quantization=nf4", "adapter.init=loftq", "adapter.dora=true"],
            "use one of them",
        ),
        (["trainer.devices=0"], "trainer.devices=0 is not accepted"),
        (["split.num_folds=abc"], "split.num_folds='abc' is not accepted"),
        (["seed=99999999999999"], "seed=99999999999999 is not accepted"),
        (["model.scratch.hidden_size=33"], "hidden_size must be a multiple of twice num_heads=4"),
        (["name=a/b"], "name='a/b' is not accepted"),
        (["name=.."], "name='..' is not accepted"),
        (["prompt.labels=[1,2,3]"], "prompt.labels=[1, 2, 3] is not accepted"),
        (["prompt.answer_cue=5"], "prompt.answer_cue=5 is not accepted"),
        (["prompt.user='{% if %}'"], "the prompt's template has an error"),
    ],
)
def test_a_wrong_value_is_one_line(overrides, line):
    cfg = config_of("train", *overrides)
    with pytest.raises(UserError) as error:
        prepare(cfg, overrides)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_number_may_be_a_name():
    assert prepare(config_of("train", "name=2024"), [])[0].settings.name == "2024"


def test_a_pretrained_model_brings_its_own_way_of_training():
    config = composed("model=llama3_8b")
    assert config["fit"]["learning_rate"] < 1e-4 < composed()["fit"]["learning_rate"]


def test_default_name_is_short_enough_for_a_folder():
    assert len(default_name("input/x", [f"prompt.user={'long ' * 100}"]).encode()) < 255


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "arena-mini"),
        (["fold=3", "input_dir=../shared/data/arena-mini", "overwrite=true", "logger=none"], "arena-mini"),
        (["model.name_or_path=../shared/models/stories260k"], "arena-mini_stories260k"),
        (["trainer.max_epochs=0"], "arena-mini_max_epochs-0"),
        (["model=llama3_8b", "prompt=conversation"], "arena-mini_llama3_8b_conversation"),
        (["debug=fast"], "arena-mini_debug-fast"),
        (["test_examples=true"], "arena-mini_test_examples-true"),
        (["task=quiz", "inference=gated_retrieval", "retriever=bm25"], "arena-mini_gated_retrieval_bm25"),
        (["experiment=arena_mini", "fold=1"], "arena_mini"),
        (["experiment=arena_mini", "seed=2"], "arena_mini_seed-2"),
        (["+trainer.limit_train_batches=0.5"], "arena-mini_limit_train_batches-0.5"),
        (["prompt.labels=[A, B, C]"], "arena-mini_labels--A-B-C-"),
    ],
)
def test_default_name_tells_runs_apart(overrides, name):
    assert default_name("../shared/data/arena-mini", overrides) == name
