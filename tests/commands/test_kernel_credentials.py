"""A kernel folder holds no credentials, and one from a stranger lays no file outside of its place."""

import json
import zipfile
from pathlib import Path

import pytest

from nexttoken.commands.kernel_folder.files import (
    DATA_SET,
    MANIFEST,
    FlatFiles,
    add_code,
    check_kernel,
    refuse_credentials,
)
from nexttoken.commands.rehearsal.place import mount_data_set
from nexttoken.errors import UserError
from nexttoken.runs.seals import KEY, hash_values
from support.kernels import write_kernel

NAMES = (
    "kaggle.json KAGGLE.JSON access_token token .netrc _netrc .env prod.env .env.local server.pem a.key id_rsa"
    " id_ed25519 credentials.json .pypirc .git-credentials"
)
TOKEN = f"hf_{'aB3' * 12}"


@pytest.mark.parametrize("name", NAMES.split())
def test_a_file_with_the_name_of_credentials_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="has the name of a file with credentials"):
        refuse_credentials(tmp_path / name)


@pytest.mark.parametrize(
    "text", [TOKEN, f"KGAT_{'0f' * 16}", f"ghp_{'a1' * 18}", f"AKIA{'A1' * 8}", "-----BEGIN RSA PRIVATE KEY-----"]
)
def test_a_file_with_a_token_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(f"hub: {text}\n")
    with pytest.raises(UserError, match="holds a token or key") as error:
        refuse_credentials(tmp_path / "config.yaml")
    assert text not in str(error.value) or text.startswith("-----")


def test_a_secret_of_the_environment_is_found_in_any_small_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    (tmp_path / "notes.txt").write_text("with 0123456789")
    with pytest.raises(UserError, match="holds the value of the environment variable WANDB_API_KEY"):
        refuse_credentials(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "special_tokens_map.json", "keys.csv", "config.yaml", "environment"]
)
def test_files_of_models_and_runs_are_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hf_model token: sk-1 AKIA")
    refuse_credentials(tmp_path / name)


def test_hidden_files_are_left_out_and_credentials_end_the_packing(tmp_path: Path) -> None:
    checkout, folder = tmp_path / "checkout", tmp_path / "data set"
    visible = ["conf/predict.yaml", "predict.py", "src/hydra_plugins/b.py", "src/nexttoken/a.py"]
    for name in (*visible, "conf/.env", "src/nexttoken/.git/token"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("x")
    folder.mkdir()
    add_code(folder, checkout)
    names = zipfile.ZipFile(folder / "code.zip").namelist()
    assert names == visible
    (checkout / "conf" / "kaggle.json").write_text("{}")
    with pytest.raises(UserError, match=r"conf/kaggle\.json has the name of a file with credentials"):
        add_code(folder, checkout)
    flat = FlatFiles(folder)
    flat.add(checkout / "src", "bases/x")  # with a hidden folder
    assert [*flat.places.values()] == ["bases/x/hydra_plugins/b.py", "bases/x/nexttoken/a.py"]
    with pytest.raises(UserError, match=r"kaggle\.json has the name"):
        flat.add(checkout / "conf", "bases/y")


@pytest.mark.parametrize("place", ["../outside", "runs/../../outside", "/outside", "runs//x"])
def test_a_stranger_s_manifest_names_no_place_outside(tmp_path: Path, place: str) -> None:
    kernel = write_kernel(tmp_path / "kernel")
    path = kernel / DATA_SET / MANIFEST
    manifest = json.loads(path.read_text())
    next(iter(manifest["files"].values()))["place"] = place
    path.write_text(json.dumps(manifest | {KEY: hash_values(manifest)}))
    with pytest.raises(UserError, match=r"a file or its place=.* is not accepted"):
        check_kernel(kernel)


def test_a_dangerous_archive_of_a_stranger_s_kernel_is_not_unpacked(tmp_path: Path) -> None:
    kernel = write_kernel(tmp_path / "kernel")
    with zipfile.ZipFile(kernel / DATA_SET / "code.zip", "w") as archive:
        archive.writestr("../../../outside", "x")
    with pytest.raises(UserError, match=r"code\.zip is refused, nothing was unpacked: '\.\./\.\./\.\./outside' points"):
        mount_data_set(kernel, tmp_path / "input")
    assert not list(tmp_path.rglob("outside"))
