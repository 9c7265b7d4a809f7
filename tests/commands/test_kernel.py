"""A kernel folder holds what a prediction needs and nothing else; a folder changed by hand is noticed."""

import json
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from nexttoken.commands.kernel import main
from nexttoken.commands.kernel_folder.build import add_searched
from nexttoken.commands.kernel_folder.files import check_kernel
from nexttoken.commands.kernel_folder.in_kernel import mounted
from nexttoken.commands.kernel_folder.packages import (
    USUAL,
    add_wheel,
    here,
    missing_packages,
    needed_packages,
    read_image,
)
from nexttoken.commands.kernel_folder.push import push_kernel
from nexttoken.errors import UserError
from nexttoken.runs.config import base_of
from support.composed import composed
from support.finished_runs import write_finished_fold, write_run
from support.training import SAMPLE

HOLDS_ALL = "".join(f"{name}==9.9\n" for name in ("hydra-core", "psutil", "jinja2", "safetensors", "pyyaml"))


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished fold without weights, among logs and checkpoints."""
    fold = write_finished_fold(tmp_path / "output" / "a=1", input_dir=str(SAMPLE))
    for name in ("labels.json", "checkpoints/last.ckpt", "tensorboard/events", "curve.csv", "model/model.safetensors"):
        (fold / name).parent.mkdir(exist_ok=True)
        (fold / name).write_text("{}")
    return fold.parent


def kernel(run: object, out: Path, *arguments: str) -> Path:
    main([f"run={run}", f"out={out}", "id=me/kernel", *arguments])
    return out


def test_the_data_set_is_flat_and_holds_no_logs_and_checkpoints(run, tmp_path, capsys):
    out = kernel(run, tmp_path / "kernel")
    manifest = check_kernel(out)
    assert [path for path in (out / "dataset").iterdir() if not path.is_file()] == []
    places = {one["place"].removeprefix("runs/a-1/") for one in manifest["files"].values() if "place" in one}
    records = {f"fold0/{name}" for name in ("config.yaml", "data.sha256", "labels.json", "oof.csv", "metrics.json")}
    assert places == records | {"folds.csv", "fold0/model/model.safetensors"}
    assert (manifest["run"], manifest["competition"]) == ("runs/a-1", "lmsys-chatbot-arena")
    code = set(zipfile.ZipFile(out / "dataset" / "code.zip").namelist())
    assert {"predict.py", "conf/predict.yaml", "src/nexttoken/pipeline.py"} <= code
    metadata = json.loads((out / "kernel-metadata.json").read_text())
    wanted = {"id": "me/kernel", "machine_shape": "NvidiaTeslaT4", "enable_internet": False, "is_private": True}
    assert wanted.items() <= metadata.items()
    assert metadata["dataset_sources"] == ["me/kernel-files"]
    said = capsys.readouterr().out
    assert "MiB, for the data set me/kernel-files" in said
    assert "hydra_core" in said


def test_equal_runs_give_equal_folders(run, tmp_path):
    one, two = (kernel(run, tmp_path / name) for name in ("one", "two"))
    assert check_kernel(one) == check_kernel(two)


def test_several_runs_become_an_average_beside_their_members(tmp_path):
    import numpy as np

    probs = np.full((40, 3), 1 / 3)
    runs = [write_run(tmp_path / name, probs, np.arange(40) % 3, input_dir=str(SAMPLE)) for name in ("a", "b")]
    out = kernel(",".join(map(str, runs)), tmp_path / "kernel")
    files = {one.get("place"): name for name, one in check_kernel(out)["files"].items()}
    assert check_kernel(out)["run"] == "runs/average"
    blend = json.loads((out / "dataset" / files["runs/average/blend.json"]).read_text())
    assert [(one["name"], one["weight"]) for one in blend["members"]] == [("../a", 0.5), ("../b", 0.5)]
    assert {"runs/a/fold3/config.yaml", "runs/b/fold3/config.yaml", "runs/average/fold3/config.yaml"} <= files.keys()


def test_a_cascade_has_both_runs_and_what_it_is_fitted_on(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("small", "larger"):
        write_run(tmp_path / name, rng.dirichlet(np.ones(3), 120), np.arange(120) % 3, input_dir=str(SAMPLE))
    cascade = [f"cascade={tmp_path / 'larger'}", "cascade_share=0.3"]
    manifest = check_kernel(kernel(tmp_path / "small", tmp_path / "kernel", *cascade))
    assert manifest["run"] == "runs/small"
    assert manifest["arguments"] == ["cascade={folder}/runs/larger", "cascade_share=0.3"]
    with pytest.raises(UserError, match="elsewhere has no finished fold"):
        kernel(tmp_path / "small", tmp_path / "other", f"cascade={tmp_path / 'elsewhere'}")
    places = {one.get("place") for one in manifest["files"].values()}
    assert {f"runs/{run}/{file}" for run in ("small", "larger") for file in ("folds.csv", "fold2/oof.csv")} <= places


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["device=p100"], r"device=p100 is refused: .*device=t4x2"),
        (["device=rtx4090"], r"device=rtx4090 is no machine of Kaggle; choose t4, t4x2"),
        (["within=nine"], r"within"),
        (["id=Me Too"], r"id=Me Too: expected <user>/<name>"),
        (["image=nowhere.txt"], r"nowhere.txt is no file; expected the image's packages"),
        (["cascade_share=0.3"], r"is the share of a larger run; name it, too: cascade="),
        (["cascade=elsewhere", "fold=all"], r"asks both runs as they were trained; leave fold out"),
        (["passages=p.jsonl"], r"the run does not search, so passages= has no use"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(given, error, run, tmp_path):
    arguments = [argument for argument in given if argument.startswith("id=")] or ["id=me/kernel"]
    with pytest.raises(UserError, match=error) as caught:
        main([f"run={run}", f"out={tmp_path / 'kernel'}", *arguments, *(one for one in given if one not in arguments)])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "kernel").exists()
    assert not [*tmp_path.glob(".*.part")]


def test_an_unfinished_run_and_a_folder_that_is_there_are_refused(run, tmp_path):
    (tmp_path / "kernel").mkdir()
    with pytest.raises(UserError, match="exists already"):
        kernel(run, tmp_path / "kernel")
    (run / "fold0" / "metrics.json").unlink()
    with pytest.raises(UserError, match="has no finished fold"):
        kernel(run, tmp_path / "other")


def test_a_task_without_a_competition_asks_for_one(tmp_path):
    fold = write_finished_fold(tmp_path / "a", task=composed("task=quiz")["task"])
    with pytest.raises(UserError, match="the task quiz names no competition; add competition="):
        kernel(fold.parent, tmp_path / "kernel")
    out = kernel(fold.parent, tmp_path / "kernel", "competition=me/quizzes", "device=cpu")
    metadata = json.loads((out / "kernel-metadata.json").read_text())
    assert metadata["dataset_sources"] == ["me/kernel-files", "me/quizzes"]
    assert (metadata["competition_sources"], metadata["enable_gpu"]) == ([], False)


def test_a_base_model_is_a_source_on_kaggle_or_a_copied_folder(run, tmp_path):
    for path in ("model/model.safetensors", "config.yaml"):
        (run / "fold0" / path).unlink()
    (run / "fold0" / "model").rmdir()
    config = composed("model.name_or_path=google/gemma-2-9b-it", f"input_dir={SAMPLE}")
    (run / "fold0" / "config.yaml").write_text(json.dumps(config | {"name": "x", "fold": 0}))
    with pytest.raises(UserError, match=r"the base model google/gemma-2-9b-it is no folder .*base=\.\.\."):
        kernel(run, tmp_path / "kernel")
    source = "google/gemma-2/transformers/gemma-2-9b-it/2"
    out = kernel(run, tmp_path / "kernel", f"base={source}")
    assert json.loads((out / "kernel-metadata.json").read_text())["model_sources"] == [source]
    base = tmp_path / "gemma"
    base.mkdir()
    (base / "config.json").write_text("{}")
    manifest = check_kernel(kernel(run, tmp_path / "copied", f"base=gemma-2-9b-it={base}"))
    assert "bases/gemma-2-9b-it/config.json" in [one.get("place") for one in manifest["files"].values()]
    assert manifest["arguments"] == ["base={folder}/bases"]


def test_a_file_that_was_changed_added_or_removed_by_hand_is_named(run, tmp_path):
    out = kernel(run, tmp_path / "kernel")
    notebook, code, more = (out / name for name in ("notebook.ipynb", "dataset/code.zip", "dataset/notes.txt"))
    for path, text, error in (
        (more, "x", "notes.txt was added"),
        (notebook, "{}", r"notebook.ipynb was changed"),
        (code, None, r"code.zip is gone"),
    ):
        before = path.read_bytes() if path.exists() else None
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(UserError, match=error):
            check_kernel(out)
        path.unlink(missing_ok=True) if before is None else path.write_bytes(before)
    check_kernel(out)


def test_the_packages_follow_from_what_the_run_uses():
    plain, adapter = composed(), composed("adapter=lora", "quantization=nf4", "model.name_or_path=x")
    assert not {"peft", "bitsandbytes", "bm25s", "lightning"} & needed_packages([plain]).keys()
    assert {"peft", "bitsandbytes"} <= needed_packages([plain, adapter]).keys()
    quiz = composed("task=quiz", "inference=gated_retrieval", "retriever=bm25")
    assert {"bm25s", "fugashi"} <= needed_packages([quiz]).keys()


def test_only_what_the_image_lacks_is_packed(tmp_path):
    image = tmp_path / "image.txt"
    image.write_text("python==3.11.13\nHydra_Core==1.3.2\npsutil @ file:///build/psutil\n# a comment\n")
    held = read_image(image)
    assert held == {"python": "3.11.13", "hydra-core": "1.3.2", "psutil": ""}
    assert missing_packages({"hydra-core": "", "psutil": ">=5"}, held) == []
    names = [
        package.name for package in missing_packages({"hydra-core": ""}, dict.fromkeys(["pyyaml", "packaging"], ""))
    ]
    assert sorted(names) == ["antlr4-python3-runtime", "hydra-core", "omegaconf"]
    old = dict.fromkeys(USUAL, "") | {"transformers": "4.57.1", "tokenizers": "0.22.1", "huggingface-hub": "0.36.0"}
    brought = {package.name for package in missing_packages({"transformers": ">=5.0,<6"}, old)}
    assert {"transformers", "tokenizers", "huggingface_hub"} <= brought
    with pytest.raises(UserError, match=r"the image holds torch 2.3.0, expected torch>=2.6; choose a newer image"):
        missing_packages({"torch": ">=2.6"}, {"torch": "2.3.0"})
    image.write_text("nothing\n")
    with pytest.raises(UserError, match="has no line name==version"):
        read_image(image)


def test_a_packed_wheel_installs_without_network(tmp_path):
    wheel = add_wheel(distribution("antlr4-python3-runtime"), tmp_path, here())
    assert wheel.name == "antlr4_python3_runtime-4.9.3-py3-none-any.whl"
    options = ["--no-index", "--no-deps", "--quiet", "--target", str(tmp_path / "packages")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    assert (tmp_path / "packages" / "antlr4" / "Parser.py").is_file()


def test_a_search_of_the_web_needs_recorded_passages(tmp_path):
    from nexttoken.commands.kernel_folder.files import FlatFiles

    (tmp_path / "flat").mkdir()
    config = composed("task=quiz", "inference=gated_retrieval", "retriever=web", "retriever.engine_id=x")
    with pytest.raises(UserError, match="searches by GoogleSearch, which a kernel cannot; record its passages"):
        add_searched(FlatFiles(tmp_path / "flat"), config, None)
    (tmp_path / "found.jsonl").write_text('{"query": "a", "passages": []}\n')
    flat = FlatFiles(tmp_path / "flat")
    arguments = add_searched(flat, config, tmp_path / "found.jsonl")
    assert arguments == ["retriever=recorded", "retriever.path={folder}/passages.jsonl"]
    assert [*flat.places.values()] == ["passages.jsonl"]


def test_inputs_are_found_where_kaggle_mounts_them_today_and_did_before(tmp_path):
    for place in ("lmsys", "competitions/wsdm", "datasets/me/files", "gemma-2/transformers/9b/2"):
        (tmp_path / place).mkdir(parents=True)
    found = [mounted(tmp_path, name).relative_to(tmp_path).as_posix() for name in ("lmsys", "wsdm", "me/files")]
    assert found == ["lmsys", "competitions/wsdm", "datasets/me/files"]
    assert mounted(tmp_path, "google/gemma-2/transformers/9b/2") == tmp_path / "gemma-2/transformers/9b/2"
    with pytest.raises(FileNotFoundError, match="map is not attached to this kernel"):
        mounted(tmp_path, "map")


def test_a_kernel_without_a_user_s_name_is_not_pushed(run, tmp_path):
    main([f"run={run}", f"out={tmp_path / 'kernel'}"])
    with pytest.raises(UserError, match=r"is called your-name/nexttoken-a-1; build it again with id="):
        list(push_kernel(tmp_path / "kernel"))


def test_a_way_in_which_a_run_was_asked_comes_with_the_run(run, tmp_path):
    write_finished_fold(run / "asked" / "SwapAveraged_1", input_dir=str(SAMPLE))
    manifest = check_kernel(kernel(run / "asked" / "SwapAveraged_1", tmp_path / "kernel"))
    assert manifest["run"] == "runs/a-1/asked/SwapAveraged_1"
    places = {one.get("place") for one in manifest["files"].values()}
    assert {"runs/a-1/fold0/model/model.safetensors", "runs/a-1/asked/SwapAveraged_1/fold0/config.yaml"} <= places


def test_a_folder_of_several_bases_serves_each_run_its_own(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert base_of(str(tmp_path), "models/two", tmp_path) == str(tmp_path / "two")
    assert base_of(str(tmp_path), None, tmp_path) is None
    assert base_of(str(tmp_path / "one"), "models/two", tmp_path) == str(tmp_path / "one")
