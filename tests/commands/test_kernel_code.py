"""The code in a kernel's data set starts without the checkout that it comes from."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from nexttoken.commands.kernel_folder.files import CODE, add_code
from support.composed import CONF


def test_the_packed_predict_composes_its_configuration_by_its_own_files(tmp_path: Path) -> None:
    """With -S Python reads no .pth file, by which an editable installation would lend it the checkout's plugins."""
    add_code(tmp_path, CONF.parent)
    zipfile.ZipFile(tmp_path / CODE).extractall(tmp_path / "code")
    paths = f"{tmp_path / 'code' / 'src'}:{sysconfig.get_paths()['purelib']}"
    call = [sys.executable, "-S", "predict.py", "--help"]
    done = subprocess.run(
        call, cwd=tmp_path / "code", env={"PYTHONPATH": paths}, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert "Configuration, key=value" in done.stdout
