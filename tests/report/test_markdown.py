"""Text of the data stands in a page and in a terminal as text, whatever markup it holds."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.errors import UNSHOWN, first_five, visible
from nexttoken.report.markdown import markdown, plain

HOSTILE = "<script>alert(1)</script> ![x](http://a) `code` a|b \x1b[31mred\x07 \u202eabc"


def test_markup_of_the_data_is_shown_and_not_followed() -> None:
    assert plain(HOSTILE) == (
        r"&lt;script>alert(1)&lt;/script> !\[x\](http://a) \`code\` a\|b "
        "\ufffd\\[31mred\ufffd \ufffdabc"
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["p < 0.001", "a > b", "1 -> 2", "**mean over genre**", "snake_case", "日本語　🙂\u200d🙂"]
)
def test_text_without_markup_stays_as_it_is(text: str) -> None:
    assert plain(text) == text == visible(text)


@given(text=st.text(st.characters(), max_size=30) | st.text("<>![]()`|\\a\n\r\x1b&/", max_size=12))
def test_no_text_leaves_its_cell_or_begins_a_tag(text: str) -> None:
    shown = plain(text)
    assert not UNSHOWN.search(shown)
    assert not re.search(r"<[A-Za-z/!?]|[\[\]`|]", re.sub(r"\\[\\\[\]`|]", "~", shown))
    assert "\n" not in shown
    assert len(markdown(["a"], [[text]]).splitlines()) == 3


def test_a_terminal_shows_the_escapes_of_what_would_command_it() -> None:
    assert visible("a\x1b[2Jb\x9b\r\ud800\tc\nd") == "a\\x1b[2Jb\\x9b\\r\\ud800\tc\nd"
    assert first_five(["\x1b[2J", 3]) == "\\x1b[2J, 3"
