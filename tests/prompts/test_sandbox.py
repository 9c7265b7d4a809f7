"""Templates are ended at their limits in seconds, and those within the limits write what jinja2 writes."""

import resource
import subprocess
import sys
import time

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nexttoken.errors import UserError
from nexttoken.prompts.chat_templates import ChatTemplate
from nexttoken.prompts.prompt import Prompt
from nexttoken.prompts.sandbox import LimitError, Sandbox, compile_template
from nexttoken.types import Example, Message

DOUBLED = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops without a choice": "{% for a in range(99999) %}{% for b in range(99999) if 0 %}{% endfor %}{% endfor %}",
    "recursive macro": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "macro that calls itself twice": (
        "{% macro m(n) %}{% if n < 40 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}"
    ),
    "recursive loop": "{% for a in [[1, [2]]] recursive %}{{ loop([a]) }}{% endfor %}",
    "doubled text": DOUBLED,
    "doubled list": DOUBLED.replace("'ab'", "['ab']").replace("ns.x ~ ns.x", "[ns.x, ns.x]"),
    "doubled mapping": DOUBLED.replace("ns.x ~ ns.x", "dict(a=ns.x, b=ns.x)"),
    "long text": "{{ 'x' * 10 ** 10 }}",
    "padded text": "{{ 'x'|center(9000000000) }}",
    "large number": "{{ 10 ** (10 ** 9) }}",
    "many characters": "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_a_template_without_an_end_is_refused_in_seconds(source):
    start, limits = time.monotonic(), resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(LimitError):
        compile_template("it", source, Sandbox()).render({}, 0)
    assert time.monotonic() - start < 30
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


def test_a_chat_template_and_a_prompt_say_their_limit_in_one_line():
    loops = ENDLESS["loops"]
    with pytest.raises(UserError, match=r"^the chat template takes more than 200,000 steps .* prompt\.chat=false$"):
        ChatTemplate(loops, {})((Message("user", "x"),))
    prompt = Prompt(loops + "{{ q[0] }}", "")
    with pytest.raises(UserError, match=r"^the prompt's template takes more than 200,000 steps .*$"):
        prompt.render(Example("", {"q": ("x",)}))


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in x %}{{ loop.index }}/{{ loop.length }} {{ loop.last }}{% else %}none{% endfor %}",
        "{% for a in x if a > 1 %}{{ loop.index }}{{ a }}{% endfor %}{% for a in [] %}{% else %}none{% endfor %}",
        "{% macro m(n, k=2) %}{{ n }}{{ k }}{{ caller is defined }}{% endmacro %}{{ m(1) }}{{ m(2, k=3) }}",
        "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}inside{% endcall %}",
        "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }}{% endfor %}{{ {'a': [1, 2]}.a }}{{ (1, 2)[1] }}{{ 2 ** 5 * 3 }}",
        "{% for a in [1, [2, [3]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}",
        "{{ dict(a=1, b=[2])|length }}{{ 'ab' * 3 }}{{ x in [[1, 2, 3]] }}",
    ],
)
def test_other_templates_write_what_jinja2_writes(source):
    expected = ImmutableSandboxedEnvironment().from_string(source).render(x=[1, 2, 3])
    assert compile_template("it", source, Sandbox()).render({"x": [1, 2, 3]}, 0) == expected


def test_a_long_text_may_be_read_letter_by_letter():
    text = "ab" * 400_000
    template = compile_template("it", "{% for letter in text %}{{ letter }}{% endfor %}", Sandbox())
    assert template.render({"text": text}, len(text)) == text


COMPILED = """
from nexttoken.prompts import sandbox
sandbox.MAX_BYTES = 2**26
try:
    sandbox.compile_template("it", "{{ '%50000000d' % 1 }}", sandbox.Sandbox())
except sandbox.UserError as error:
    print(error)
"""


def test_a_constant_too_large_for_the_memory_is_refused_when_it_is_compiled():
    fresh = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)  # no freed memory to reuse
    assert fresh.stdout == "it needs more than 0.0625 GiB of memory\n"


def test_a_template_nested_too_deeply_is_refused():
    with pytest.raises(UserError, match="it is nested too deeply"):
        compile_template("it", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", Sandbox())
