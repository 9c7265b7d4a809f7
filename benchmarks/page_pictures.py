"""Take the pictures of a page that README.md and docs/page.md show, with Chromium.

make page
python -m benchmarks.page_pictures                                    docs/images/page_rows.png and page_mistakes.png
python -m benchmarks.page_pictures page=all.html parts=c1-runs,c1-rows out=pictures

Arguments:
  page=output/lmsys/page.html
  parts=...          anchors of the page; a picture begins there and ends with the part
  out=docs/images
  width=1100         of the window, in pixels
  height=900         of a picture at most
"""

from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from shutil import which
from typing import Annotated

from PIL import Image
from pydantic import Field
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from benchmarks.measure import Names
from nexttoken.commands.arguments import Arguments, run
from nexttoken.errors import UserError

NUM_COLOURS = 128
MAX_BYTES = 200_000
PLACE = """
const part = document.getElementById(arguments[0]), box = part && part.getBoundingClientRect();
return part && {x: 0, y: box.top + scrollY, width: innerWidth, height: box.height};
"""
Pixels = Annotated[int, Field(ge=200, le=4000)]


class PicturesArguments(Arguments):
    page: Path = Path("output/lmsys/page.html")
    parts: Names = ("c1-rows", "c1-mistakes")
    out: Path = Path("docs/images")
    width: Pixels = 1100
    height: Pixels = 900


def main(arguments: Sequence[str]) -> None:
    given = PicturesArguments.parse(arguments)
    if not given.page.is_file():
        raise UserError(f"{given.page} is not there; write it with make page")
    if not which("chromedriver"):
        raise UserError("chromedriver is not installed; install Debian's packages chromium and chromium-driver")
    with opened(given.page, given.width) as driver:
        for part in given.parts:
            path = given.out / f"page_{part.partition('-')[2]}.png"
            save_picture(picture_of(driver, part, given.height), path)
            print(f"wrote {path}, {path.stat().st_size / 1e3:.0f} kB")


@contextmanager
def opened(page: Path, width: int) -> Iterator[Chrome]:
    """Chromium that shows the page in a window of this width."""
    options = ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = Chrome(options, Service(which("chromedriver")))
    try:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(page.resolve().as_uri())
        yield driver
    finally:
        driver.quit()


def picture_of(driver: Chrome, part: str, height: int) -> bytes:
    """A PNG of the part with this anchor, at most so high. Raises UserError where the page has no such part."""
    place = driver.execute_script(PLACE, part)
    if place is None:
        raise UserError(f"parts={part}: the page has no such anchor; take one from its links")
    clip = {**place, "height": min(place["height"], height), "scale": 1}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    return b64decode(taken["data"])


def save_picture(png: bytes, path: Path) -> None:
    """Write it in few colours. Raises UserError where the file becomes too large."""
    with Image.open(BytesIO(png)) as picture:
        picture.convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path} has {size:,} bytes, expected at most {MAX_BYTES:,}; give a smaller width or height")


if __name__ == "__main__":
    run(main, __doc__)
