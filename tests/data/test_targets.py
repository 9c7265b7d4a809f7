"""A `_target_` builds a class of this project and of the kind that its place holds, and nothing else."""

import inspect
import pkgutil
from functools import cache
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nexttoken
from nexttoken.data.targets import LOGGERS, PLACES, check_targets, load_class, make
from nexttoken.errors import UserError
from nexttoken.prompts.prompt import Prompt
from support.composed import composed

ONCE = {"_target_": "nexttoken.inference.Once"}
PROMPT = {
    "_target_": "nexttoken.prompts.Prompt",
    "user": "{{ question }}",
    "answer_cue": "Answer: ",
    "labels": ["A", "B"],
}
MAPPED = ("transforms", "train_transforms", "logger")
EXPECTED = {  # by place: all classes of the rooms without torch that it takes
    "task": {"Dialogue", "Instruct", "Marks", "OpenFiles", "Preference", "Quiz", "Table"},
    "prompt": {"Prompt"},
    "split": {"GroupedStratified"},
    "retriever": {"Nothing", "BM25", "Dense", "Recorded", "Recording", "GoogleSearch"},
    "candidates": {"Candidates"},
    "search": {"Search"},
}


def at(place: str, node: object) -> dict:
    """A configuration with `node` in `place`."""
    return {place: {"x": node} if place in MAPPED else node}


@cache
def light_names() -> list[str]:
    """Every dotted name of a module without torch: its classes, functions, constants and imported modules."""
    rooms = ("data", "inference", "metrics", "prompts", "tasks", "transforms", "types", "errors", "settings", "build")
    modules = (info.name for info in pkgutil.walk_packages(nexttoken.__path__, "nexttoken."))
    light = [name for name in modules if name.split(".")[1] in rooms]
    return [f"{name}.{attribute}" for name in light for attribute in vars(import_module(name))]


@pytest.mark.parametrize("place", EXPECTED)
def test_a_place_takes_the_classes_of_its_kind_under_the_module_that_defines_them(place: str) -> None:
    taken = {}
    for target in light_names():
        try:
            check_targets({place: {"_target_": target}})
            taken[target] = load_class(target, place)
        except UserError:
            continue
    assert {kind.__name__ for kind in taken.values()} == EXPECTED[place]
    for target, kind in taken.items():
        assert inspect.isclass(kind)
        assert target in (f"{kind.__module__}.{kind.__name__}", "nexttoken.prompts.Prompt")


@pytest.mark.parametrize(
    "target",
    [
        "nexttoken.data.files.write_json",
        "nexttoken.tasks.quiz.Path",
        "nexttoken.tasks.quiz.json.loads",
        "nexttoken.transforms.curation.stream.pickle.loads",
        "nexttoken.transforms.orders.replace",
        "nexttoken.transforms.curation.stream.Spool",
        "nexttoken.inference.retrieval.corpus.shutil.rmtree",
        "nexttoken.inference.retrieval.corpus.PassageStore",
        "nexttoken.inference.retrieval.recorded.write_text",
        "nexttoken.prompts.prompt.Prompt.for_classes",
        "nexttoken.engine.heads.nn.Module",
        "nexttoken.runs.folder.FoldFolder",
        "nexttoken.pipeline.np.load",
        "nexttoken.engine.answerers.load_transformers_writer",
        "nexttoken.prompts",
        "nexttoken..inference.Once",
        "lightning.pytorch.loggers.logger.import_module",
        "lightning.pytorch.loggers.CometLogger",
        "os.system",
        "builtins.eval",
        "",
        "x",
    ],
)
@pytest.mark.parametrize("place", [*PLACES, "logger"])
def test_anything_else_is_refused_in_every_place(target: str, place: str) -> None:
    node = at(place, {"_target_": target})
    with pytest.raises(UserError) as error:
        make(node[place], place) if place != "logger" else check_targets(node)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_", "_x_"])
def test_a_node_holds_a_target_and_the_keys_of_its_class_alone(key: str) -> None:
    for place, node in (("prompt", PROMPT), ("inference", ONCE), ("inference", ONCE | {"ask": ONCE | {key: ["x"]}})):
        with pytest.raises(UserError, match=f"{key} is refused|unexpected keyword"):
            make(node | {key: ["x"]}, place)
        with pytest.raises(UserError, match=f"{key} is refused"):
            check_targets(at(place, node | {key: ["x"]}))


@pytest.mark.parametrize("place", ["trainer", "fit", "model", "prompt", "inference"])
def test_a_node_in_a_place_of_values_is_refused(place: str) -> None:
    node = {"_target_": "nexttoken.inference.Once"}
    for value in (node, [node], {"a": [{"b": node}]}):
        with pytest.raises(UserError, match=rf"{place}\.other.*is refused"):
            check_targets(
                {place: (PROMPT if place == "prompt" else ONCE if place == "inference" else {}) | {"other": value}}
            )


def test_a_place_without_a_class_is_one_line() -> None:
    for node in ({}, {"_target_": 3}, {"_target_": ["nexttoken.inference.Once"]}, {"a": 1}, [ONCE]):
        with pytest.raises(UserError, match="inference names no class"):
            make(node, "inference")
        with pytest.raises(UserError, match=r"transforms\.x names no class"):
            check_targets({"transforms": {"x": node}})


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_of_a_node_stays_as_it_is(text: str) -> None:
    for value in (text, f"${{oc.env:HOME}}{text}", "${oc.create:{_target_:os.system}}", "${HOME}", "\\${x}", "${"):
        built = make(PROMPT | {"system": value}, "prompt")
        assert isinstance(built, Prompt)
        assert built.system == value


def test_a_part_shares_no_value_with_the_configuration() -> None:
    node = {**PROMPT, "labels": ["A", "B"]}
    make(node, "prompt").labels.append("C")
    assert node["labels"] == ["A", "B"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"colour": "red"}, "unknown key 'logger.x.colour'"),
        ({"api_key": "secret"}, "unknown key 'logger.x.api_key'"),
        ({"tracking_uri": "file:/etc"}, "unknown key 'logger.x.tracking_uri'"),
        ({"artifact_location": "/etc"}, "unknown key"),
        ({"dir": "/etc"}, "unknown key"),
        ({"name": "../../.."}, "logger.x.name='../../..' is not accepted"),
        ({"name": "/etc"}, "is not accepted"),
        ({"version": "a\\b"}, "is not accepted"),
        ({"name": "..", "version": ""}, "is not accepted"),
        ({"experiment": {"_target_": "os.system"}}, "unknown key|refused"),
    ],
)
@pytest.mark.parametrize("target", LOGGERS)
def test_a_logger_gets_the_keys_of_its_list_and_no_folder_elsewhere(values: dict, line: str, target: str) -> None:
    with pytest.raises(UserError, match=f"{line}|unknown key"):
        check_targets({"logger": {"x": {"_target_": target} | values}})


def test_the_shipped_loggers_are_accepted() -> None:
    for name in ("default", "none", "mlflow", "wandb"):
        assert composed(f"logger={name}")["logger"].keys() <= {"tensorboard", name}
        check_targets(composed(f"logger={name}"))
