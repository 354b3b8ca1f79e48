"""Statements are read as ClickHouse reads them: words inside strings, comments and names mean nothing."""

import pytest

from core.adapters.embedded.clickhouse_errors import EngineError
from core.adapters.embedded.clickhouse_statement import Kind, parse, processes_references


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x00\n", b"\x00\n"),
        (b"insert into t (a, `format`) settings x = 'FORMAT CSV' format Native  \r\n\x01", b"\x01"),
        (b"/* FORMAT CSV */ INSERT INTO db.format (a) -- FORMAT CSV\nFORMAT Native\n", b""),
        (b"INSERT INTO FUNCTION null('a UInt8') FORMAT Native \x20\x01", b"\x01"),
        (b"INSERT INTO TABLE values FORMAT Native\nVALUES", b"VALUES"),
    ],
)
def test_rows_begin_right_behind_the_format(text: bytes, data: bytes) -> None:
    statement = parse(text)
    assert statement.kind is Kind.INSERT_DATA
    assert statement.format == "Native"
    assert text[statement.data_start :] == data
    assert not statement.sql.rstrip().upper().endswith(b"NATIVE")


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t VALUES ('x FORMAT CSV')",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"CREATE TABLE t (a Int8)",
    ],
)
def test_other_changes_go_to_the_engine_whole(text: bytes) -> None:
    statement = parse(text)
    assert statement.kind is Kind.OTHER
    assert statement.sql == text
    assert not statement.answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"SELECT 1", None),
        (b"SELECT 1 format tsv;", "TSV"),
        (b"SELECT 1 FORMAT JSONEachRow SETTINGS a = 1", "JSONEachRow"),
        (b"SELECT format FROM t", None),
        (b"SELECT * FROM (SELECT 1 FORMAT CSV)", None),
        (b"SELECT 'FORMAT CSV'", None),
        (b"SELECT 1 -- FORMAT CSV", None),
    ],
)
def test_only_the_format_at_the_end_counts(text: bytes, expected: str | None) -> None:
    assert parse(text).format == expected


@pytest.mark.parametrize(
    ("text", "condition", "mode"),
    [
        (b"KILL QUERY WHERE query_id = 'a SYNC' SYNC", b"query_id = 'a SYNC'", b"SYNC"),
        (b"kill query where user = 'x' test format CSV", b"user = 'x'", b"TEST"),
        (b"KILL QUERY WHERE 1;", b"1", b"ASYNC"),
        (b"KILL QUERY WHERE 1 SYNC FORMAT JSON", b"1", b"SYNC"),
    ],
)
def test_what_to_kill_and_whether_to_wait(text: bytes, condition: bytes, mode: bytes) -> None:
    statement = parse(text)
    assert (statement.kind, statement.condition, statement.mode) == (Kind.KILL_QUERY, condition, mode)


def test_kill_mutation_is_the_engines() -> None:
    assert parse(b"KILL MUTATION WHERE 1").kind is Kind.OTHER


def test_the_table_of_processes_is_found_only_where_it_is_a_table() -> None:
    sql = (
        b"SELECT 'system.processes' FROM system.processes -- system.processes\n JOIN `system` . \"processes\""
    )
    assert [sql[start:end] for start, end in processes_references(sql)] == [
        b"system.processes",
        b'`system` . "processes"',
    ]


@pytest.mark.parametrize("text", [b"SELECT 1 INTO OUTFILE 'x'", b"INSERT INTO t FROM INFILE 'x' FORMAT CSV"])
def test_files_of_the_server_are_out_of_reach(text: bytes) -> None:
    with pytest.raises(EngineError):
        parse(text)
