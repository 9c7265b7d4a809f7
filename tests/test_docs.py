"""The documentation against the code: commands, configuration choices, settings, named files and links exist."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.errors import HydraException

from nexttoken.__main__ import commands
from support.composed import CONF, composed
from support.pages import PAGES, PLACEHOLDER, ROOT, name, pieces

GROUPS = {path.name: {choice.stem for choice in path.glob("*.yaml")} for path in CONF.iterdir() if path.is_dir()}
# Commands whose arguments are those of train.py as well; the others name all of theirs in their docstring.
OVERRIDES = {"curate", "data", "forecast", "labels", "plan", "quantize"}

CODE = {page: pieces(page.read_text(encoding="utf-8")) for page in PAGES}


def arguments(start: str, page: Path) -> list[list[str]]:
    """The arguments after each `start` in a page's code, split as a shell splits them, without comments."""
    found = [code.partition(start)[2] for code in CODE[page] if start in code]
    return [shlex.split(re.split(r"  +(?![\w'+]+[.=])|(?<!\w)\(|;| \[", rest)[0], comments=True) for rest in found]


def words(code: str) -> list[str]:
    return re.split(r"[\s']+", code)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_exists_and_knows_its_arguments(page):
    known = commands()
    for called, *rest in filter(None, arguments("python -m nexttoken ", page)):
        if called == "NAME":
            continue
        assert called in known, f"{name(page)} names the command {called!r}"
        keys = [key for key, sign, _ in (argument.partition("=") for argument in rest) if sign]
        unknown = [key for key in keys if f"{key}=" not in known[called]]
        assert called in OVERRIDES or not unknown, f"{name(page)} gives {called} the arguments {unknown}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_module_that_is_run_exists(page):
    for module in re.findall(r"python -m ((?:samples|benchmarks)[\w.]*\w)", page.read_text(encoding="utf-8")):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{name(page)} runs {module}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_choice_of_a_group_has_its_file(page):
    for code in CODE[page]:
        for word in words(code) if "benchmarks." not in code else []:
            group, _, values = word.partition("=")
            if group in GROUPS and "NAME" not in values and "/" not in values:
                missing = {*values.strip(",").split(",")} - GROUPS[group] - {""}
                assert not missing, f"{name(page)} names {group}={','.join(missing)}: no file in conf/{group}/"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_training_and_prediction_composes(page):
    """A sweep is composed with the first value of each list, a search without what it searches by a function."""
    for entry in ("train", "predict"):
        for rest in arguments(f"python {entry}.py", page):
            settings = [word for word in rest if "=" in word and word.split("=")[1:] != ["NAME"] and word[0] != "-"]
            given = [one for one in settings if not re.match(r"[\w.]+=(tag|int|interval|range|choice)\(", one)]
            first = [re.sub(r"^([^=]+=[^\[{,]*),.*", r"\1", setting) for setting in given]
            try:
                composed(*first, name=entry)
            except HydraException as error:
                pytest.fail(f"{name(page)}: {entry}.py {' '.join(first)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    text = page.read_text(encoding="utf-8")
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text)):
        if "://" in target:
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{name(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.M)
            anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{name(page)} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_and_modules_exist(page):
    text = PLACEHOLDER.sub("NAME", page.read_text(encoding="utf-8"))
    for path in re.findall(r"(?<![\w/.])(?:src|tests|conf|docs|samples|benchmarks)/[\w./]+\.(?:py|yaml|md)\b", text):
        assert "/x." in path or "NAME" in path or (ROOT / path).exists(), f"{name(page)} names {path}"
    for module in re.findall(r"(?<!-m )\bnexttoken\.([a-z]\w*)", text):
        folder = ROOT / "src" / "nexttoken"
        assert (folder / module).is_dir() or (folder / f"{module}.py").exists(), (
            f"{name(page)} names nexttoken.{module}"
        )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_of_this_project_have_no_options_with_dashes(page):
    for code in CODE[page]:
        flags = {*re.findall(r"(?<!\S)--\w[\w-]*", code)} - {"--help"}
        others = ("pip", "torchrun", "srun", "#SBATCH")  # commands of others, with arguments of their own
        is_own = not any(one in code for one in others)
        assert not flags or not is_own, f"{name(page)}: {flags} in {code.strip()!r}; arguments are key=value"


def test_every_command_has_a_section():
    headings = re.findall(r"^### (.+)$", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(headings) == sorted(commands())


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert not [page for page in pages if f"({page})" not in index]


@pytest.mark.parametrize(("entry", "names"), [("train", {None}), ("predict", {None, "submission"})])
def test_every_example_of_an_entry_s_help_composes(entry, names):
    """Kaggle takes a file of the name submission.csv."""
    usage = re.match(r'"""(.*?)"""', (ROOT / f"{entry}.py").read_text(encoding="utf-8"), flags=re.S)[1]
    lines = PLACEHOLDER.sub("NAME", usage).replace("\\\\\n", " ").splitlines()
    examples = [line.split()[2:] for line in lines if line.startswith(f"python {entry}.py")]
    first = [[word.split(",")[0] for word in example if "=" in word] for example in examples]
    assert {composed(*one, name=entry)["name"] for one in first} == names


def test_the_license_is_the_one_that_the_package_names():
    named = re.search(r'^license = "(.*)-(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.M)
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert f"{named[1]} License" in text
    assert f"Version {named[2]}" in text
