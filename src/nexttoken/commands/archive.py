"""Safe unpacking of a downloaded zip: all of it lands inside the folder, or nothing does."""

import fnmatch
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nexttoken.data.whole_files import put_in_place, scratch_folder
from nexttoken.errors import UserError, first_five

MAX_BYTES = 8 * 2**30  # unpacked, all members together; the LMSYS files are 0.2 GB
MAX_MEMBERS = 10_000
MAX_RATIO = 100  # unpacked over packed; text stays below 20, a zip bomb is near deflate's limit of 1032
SMALL = 2**20  # bytes; the ratio of smaller members does not matter


def unpack(archive: Path, folder: Path, required: Sequence[str] = ()) -> None:
    """Unpack `archive` as the new folder `folder`, which must be absent or empty.

    Raises UserError, with `folder` as it was, for an archive that is damaged or dangerous (`refuse_dangerous`), and for
    a missing or empty `required` file, given by a pattern of its name.
    """
    refuse_filled(folder)
    with scratch_folder(folder) as part:
        try:
            with zipfile.ZipFile(archive) as opened:
                refuse_dangerous(opened.infolist(), archive)
                opened.extractall(part)  # reads no more than the declared sizes, and checks the CRCs
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise UserError(f"{archive.name} is damaged ({error}); nothing was unpacked, download it again") from error
        except OSError as error:  # a full disk, a name too long for it, one name of a file and a folder
            raise UserError(f"{archive.name} cannot be unpacked: {error.strerror}; nothing was left behind") from error
        sizes = {path.name: path.stat().st_size for path in part.iterdir() if path.is_file()}
        filled = [name for name, size in sizes.items() if size]
        if missing := [pattern for pattern in required if not fnmatch.filter(filled, pattern)]:
            lacks = f"{archive.name} holds no {', '.join(missing)} (or an empty one)"
            raise UserError(f"{lacks}; expected {', '.join(required)}: is it the right competition?")
        put_in_place(part, folder)  # an empty folder may be replaced, a filled one raises


def refuse_filled(folder: Path) -> None:
    """Raise UserError unless `folder` is absent or empty: nothing is ever overwritten."""
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if not is_empty and (folder.exists() or folder.is_symlink()):
        raise UserError(f"{folder} is already there; move it away or name another folder with input_dir=")


def refuse_dangerous(members: Sequence[zipfile.ZipInfo], archive: Path) -> None:
    """Raise UserError with the first five members that point outside the folder, are links, repeat a name, and so on.

    Too many files or bytes, as in a zip bomb, are refused as well.
    """
    refused = f"{archive.name} is refused, nothing was unpacked"
    if bad := [f"{member.filename!r} {reason}" for member in members if (reason := _danger(member))]:
        raise UserError(f"{refused}: {first_five(bad)}")
    names = Counter("/".join(_parts(member)).casefold() for member in members)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise UserError(f"{refused}: it repeats {first_five(repeated)}")
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES or len(members) > MAX_MEMBERS:
        expected = f"at most {MAX_MEMBERS:,} files of {MAX_BYTES:,} bytes are expected"
        raise UserError(f"{refused}: {len(members):,} files of {total:,} bytes, {expected}")


def _danger(member: zipfile.ZipInfo) -> str:
    """The reason to refuse this member; empty where it is safe."""
    name = member.orig_filename  # `filename` is already cut at a NUL
    mode = member.external_attr >> 16
    if ".." in _parts(member) or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or "\0" in name:
        return "points outside the folder"
    if not _parts(member):
        return "has no name"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is encrypted or packed in an unusual way"
    if member.file_size > SMALL and member.file_size > MAX_RATIO * max(member.compress_size, 1):
        return f"unpacks to {member.file_size:,} bytes from {member.compress_size:,}"
    return ""


def _parts(member: zipfile.ZipInfo) -> list[str]:
    return [part for part in member.orig_filename.replace("\\", "/").split("/") if part not in ("", ".")]
