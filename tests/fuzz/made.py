"""Inputs of sound form, made by the grammar of their kind, with values that nobody expects in places of sound ones."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

from nexttoken.commands.entry import known_keys
from support.composed import composed

ODD = ["", " ", "nan", "1e999", "-0", "null", "[]", '{"a":1}', "\ud800", "a\nb", "\r", "=1+1", "${x}", "{{ x }}", "\0"]
ODD += ["9" * 30, "９", "x" * 3_000, "\u2028", "\ufeff", "os.system", "True", "A", "0"]
TEXTS = st.sampled_from(ODD) | st.text(max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
COLUMNS: Sequence[tuple[Any, Any]] = (  # values and type of a column
    (None, pa.null()),
    (True, pa.bool_()),
    (2**64 - 1, pa.uint64()),
    (float("nan"), pa.float64()),
    (float("-inf"), pa.float32()),
    ("\u2028x", pa.large_string()),
    (b"\xff\0", pa.binary()),
    (b"1234", pa.binary(4)),
    (date(9999, 12, 31), pa.date32()),
    (datetime(1, 1, 1, tzinfo=UTC), pa.timestamp("us", tz="UTC")),
    (2**50, pa.timestamp("s")),
    (time(23, 59), pa.time64("ns")),
    (timedelta(days=-9), pa.duration("ms")),
    (Decimal("1.50"), pa.decimal128(38, 2)),
    (["a", None], pa.list_(pa.string())),
    ([], pa.list_(pa.list_(pa.int8()))),
    ({"a": {"b": "c"}}, pa.struct([("a", pa.struct([("b", pa.string())]))])),
    ([("k", 1), ("k", 2)], pa.map_(pa.string(), pa.int64())),
    ("x", pa.dictionary(pa.int8(), pa.string())),
)
PIECES = [
    "{{ ",
    " }}",
    "{% for a in ",
    " %}",
    "{% endfor %}",
    "{% if ",
    "{% endif %}",
    "{% set x = ",
    "{% macro m(a) %}",
]
PIECES += [
    "{% endmacro %}",
    "{% call m(1) %}",
    "{% endcall %}",
    "m(2)",
    "prompt",
    "messages",
    "labels",
    "options",
    "loop",
]
PIECES += [
    " | ",
    "join",
    "tojson",
    "length",
    "sort",
    "map(attribute='x')",
    "int",
    "batch(0)",
    "slice(0)",
    "round(9)",
    "a",
]
PIECES += [
    "range(9)",
    "[0]",
    ".content",
    "[",
    "]",
    "(",
    ")",
    " + ",
    " ~ ",
    " ** ",
    "1",
    "0",
    "-1",
    "'x'",
    "none",
    "{#",
    "#}",
]
PIECES += [
    "{% break %}",
    "{% generation %}",
    "{% endgeneration %}",
    "raise_exception('no')",
    "strftime_now('%Y')",
    "self",
]


def tables(sample: bytes) -> st.SearchStrategy[bytes]:
    """A CSV file of the sample's columns, in any order and perhaps not all, with odd cells beside its own."""
    own = list(csv.reader(io.StringIO(sample.decode())))
    cells = TEXTS | st.sampled_from([cell for row in own for cell in row])

    def rows(header: list[str]) -> st.SearchStrategy[list[list[str]]]:
        return st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), max_size=4).map(
            lambda r: [header, *r]
        )

    return st.permutations(own[0]).flatmap(rows).map(as_csv) | rows(own[0][:-1]).map(as_csv)


def as_csv(rows: list[list[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


def parquet(sample: bytes) -> st.SearchStrategy[bytes]:
    """A table of the sample's columns, some of them of other types."""
    own = pq.read_table(io.BytesIO(sample))

    def as_file(changes: list[tuple[int, tuple[Any, Any]]]) -> bytes:
        table = own
        for place, (value, kind) in changes:
            name = table.column_names[place % table.num_columns]
            plain = kind.value_type if pa.types.is_dictionary(kind) else kind
            column = pa.array([value] * table.num_rows, plain)
            column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column
            table = table.set_column(table.column_names.index(name), name, column)
        pq.write_table(table, file := io.BytesIO())
        return file.getvalue()

    return st.lists(st.tuples(st.integers(0, 99), st.sampled_from(COLUMNS)), max_size=3).map(as_file)


def tables_of_any_kind(sample: bytes) -> st.SearchStrategy[bytes]:
    return parquet(sample) if sample.startswith(b"PAR1") else tables(sample)


def values(sample: bytes) -> st.SearchStrategy[bytes]:
    """The sample's JSON, line by line or as a whole, with odd values in one to three places; no JSON stays as it is."""
    try:
        lines = [json.loads(sample)]
    except ValueError:
        try:
            lines = [json.loads(line) for line in sample.splitlines()]
        except ValueError:
            return st.just(sample)

    def as_lines(changes: list[tuple[int, Any]]) -> bytes:
        found = lines
        for place, value in changes:
            found = changed(found, place, value)
        text = "\n".join(json.dumps(one) for one in found) if isinstance(found, list) else json.dumps(found)
        return text.encode()

    return st.lists(st.tuples(st.integers(0, 10_000), VALUES), min_size=1, max_size=3).map(as_lines)


def settings_file(sample: bytes) -> st.SearchStrategy[bytes]:
    """The sample's YAML below its own comments, with odd values in one to three places."""
    header = [line for line in sample.splitlines(keepends=True) if line.startswith(b"#")]
    own = json.dumps(yaml.safe_load(sample)).encode()  # JSON is YAML
    return values(own).map(lambda text: b"".join(header) + text)


def changed(node: Any, place: int, value: Any) -> Any:
    """The node with `value` in the place of one of those inside it; digits of `place` lead there."""
    if not node or not isinstance(node, dict | list):
        return value
    keys = [*node] if isinstance(node, dict) else range(len(node))
    place, choice = divmod(place, len(keys))
    key = keys[choice]
    inner = value if place % 3 == 2 else changed(node[key], place // 3, value)
    return {**node, key: inner} if isinstance(node, dict) else [*node[:key], inner, *node[key + 1 :]]


@cache
def settings() -> list[str]:
    return known_keys(composed())


def command_lines(_: bytes) -> st.SearchStrategy[bytes]:
    """Overrides of known keys by odd values, plain or as Hydra's own lists and mappings."""
    written = (
        PLAIN.map(str)
        | VALUES.map(json.dumps)
        | st.sampled_from(["{}", "[]", "${fold}", "${.x}", "null", "'a b'", "a,b"])
    )
    keys, signs = st.sampled_from(settings()), st.sampled_from(["", "", "", "+", "++", "~"])
    line = st.builds("{}{}={}".format, signs, keys, written).map(lambda text: text.replace("\n", " "))
    return st.lists(line, min_size=1, max_size=3).map(lambda all_lines: "\n".join(all_lines).encode("utf-8", "replace"))


def templates(_: bytes) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(PIECES) | TEXTS, max_size=14).map(
        lambda all_: "".join(all_).encode("utf-8", "replace")
    )


MADE: dict[str, Callable[[bytes], st.SearchStrategy[bytes]]] = {
    "csv": tables,
    "tables": tables_of_any_kind,
    "parquet": parquet,
    "json": values,
    "json_lines": values,
    "overrides": command_lines,
    "yaml_files": settings_file,
    "run_settings": values,
    "prompts": templates,
    "chat_templates": templates,
    "models": values,
    "adapters": values,
    "runs": values,
    "pages": values,
}
