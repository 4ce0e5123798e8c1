"""A text file is read as what it is, what was decided is said, and what it leaves open is refused with its option."""

import codecs
import io
import re
from collections.abc import Sequence

import numpy as np
import pytest

from rnnctl.__main__ import main
from rnnctl.errors import InputError
from rnnctl.files.dialect import Dialect
from rnnctl.files.table import Table, parse_csv

INDEX = r"numbers the lines"
DATES = r"dates the lines"
COMMAS = r"decimal commas \(--decimal \. if"
SEMICOLONS = "separated by semicolons"


def read(text: str | bytes, columns: Sequence[str] = (), *, selectable: bool = True, **dialect) -> Table:
    data = text.encode() if isinstance(text, str) else text
    return parse_csv(data, "x.csv", columns, dialect=Dialect(**dialect), selectable=selectable)


def savetxt(**settings) -> str:
    stream = io.StringIO()
    np.savetxt(stream, [[1.5, -2.5], [0.25, 4]], **settings)
    return stream.getvalue()


# Name -> the file, its values, its names, and a piece of every note in their order.
READ = {
    # An index
    "pandas' index": (",a,b\n0,1.5,2.5\n1,1.7,0.5\n", [[1.5, 2.5], [1.7, 0.5]], "a b", [INDEX]),
    "pandas' index read again": ("Unnamed: 0,a\n0,1.5\n1,2\n", [[1.5], [2]], "a", [INDEX]),
    "an index saved twice": ("Unnamed: 0.1,Unnamed: 0,a\n0,0,5\n1,1,2\n", [[5], [2]], "a", [INDEX, INDEX]),
    "an index with a step": (",a\n0,1.5\n5,1.7\n10,3\n", [[1.5], [1.7], [3]], "a", [INDEX]),
    "a filtered index": (",a\n3,1.5\n4,1.7\n9,3\n", [[1.5], [1.7], [3]], "a", [INDEX]),
    "an index that falls": (",a\n2,5\n1,7\n0,2\n", [[5], [7], [2]], "a", ["numbers the lines, backwards"]),
    "an index below zero": (",a\n-2,5\n-1,7\n", [[5], [7]], "a", [INDEX]),
    "an index of fractions": (",a\n0.0,5\n0.1,7\n0.2,4\n", [[5], [7], [4]], "a", [INDEX]),
    "a single line": (",a\n0,5\n", [[5]], "a", [INDEX]),
    "an index by its name": ("id,a\n7,5\n9,7\n12,4\n", [[5], [7], [4]], "a", [INDEX]),
    "R's corner, which is missing": ('"x" "y"\n"1" 2.5 3\n"2" 4 5\n', [[2.5, 3], [4, 5]], "x y", ["spaces", INDEX]),
    "R's corner between commas": ('"","x"\n"1",2.5\n"2",4\n', [[2.5], [4]], "x", [INDEX]),
    "an index called #": ("#,x\n1,5\n2,3\n", [[5], [3]], "x", [INDEX]),
    "days": ("date,a\n2020-01-01,1\n2020-01-02,3\n", [[1], [3]], "a", [DATES]),
    "days, the last first": ("d,a\n2020-01-02,1\n2020-01-01,3\n", [[1], [3]], "a", ["dates the lines, backwards"]),
    "times": ("x,a\n12:30,1\n12:31,3\n", [[1], [3]], "a", [DATES]),
    "days with times": ("x,a\n2020-01-01T12:30:00Z,1\n2020-01-01T12:31:00Z,3\n", [[1], [3]], "a", [DATES]),
    "quarters": ("q,v\n2020Q1,1\n2020Q2,3\n", [[1], [3]], "v", [DATES]),
    "years": ("year,v\n1990,1\n1991,3\n", [[1], [3]], "v", [DATES]),
    "days as numbers": ("date,v\n20200131,1\n20200201,3\n", [[1], [3]], "v", [DATES]),
    "year and quarter": ("year,quarter,v\n1959,4,7\n1960,1,8\n", [[7], [8]], "v", [DATES, r"quarter .* lines \("]),
    "year, month and day": ("year,month,day,v\n9,2,28,7\n9,3,1,8\n", [[7], [8]], "v", [DATES] * 3),
    "day and time": ("date,time,v\n2020-01-01,00:00,7\n2020-01-01,00:01,8\n", [[7], [8]], "v", [DATES] * 2),
    "days without a header": (
        "2020-01-01,1\n2020-01-02,3\n", [[1], [3]], "column_2", ["is taken as data", DATES],
    ),
    "days with hours under a name": ("d,v\n2020-01-01 12,15\n2020-01-01 13,17\n", [[15], [17]], "v", [DATES]),
    "days in words": ("Date Time,v\nJan 1 2020,1\nJan 2 2020,4\n", [[1], [4]], "v", ["names the lines"]),
    "days with hours between tabs": ("d\tv\n2020-01-01 12\t5\n2020-01-01 13\t7\n", [[5], [7]], "v", ["tabs", DATES]),
    "a time with its unit": ("Time (s),v\n0.0,1\n0.13,5\n0.2,3\n", [[1], [5], [3]], "v", [DATES]),
    "names": ("station,a\noslo,1\nbergen,3\n", [[1], [3]], "a", ["names the lines"]),
    # Features that look like an index
    "a named count": ("x,y\n1,2\n2,3.5\n3,4\n", [[1, 2], [2, 3.5], [3, 4]], "x y", ["x counts .*a feature"]),
    "many lines that rise under a name": (
        "u,v\n" + "\n".join(f"{k * k},{k * 7 % 5}" for k in range(8)), [[k * k, k * 7 % 5] for k in range(8)], "u v",
        ["u goes one way all along and is read as a feature; --columns v"],
    ),
    "many lines that rise in a later column": (
        "v,u\n" + "\n".join(f"{k * 7 % 5},{k * k}" for k in range(8)), [[k * 7 % 5, k * k] for k in range(8)],
        "v u", [],
    ),
    "a count that comes last": ("y,t\n2,0\n5,1\n4,2\n", [[2, 0], [5, 1], [4, 2]], "y t", ["t counts .*--columns y"]),
    "ids in no order": ("id,x\n5,1\n3,2\n9,1\n", [[5, 1], [3, 2], [9, 1]], "id x", ["id is named as an index is"]),
    "an id of two lines each": ("id,x\n5,1\n5,2\n9,1\n", [[5, 1], [5, 2], [9, 1]], "id x", ["id is named as"]),
    "a nameless column within": ("x,,y\n5,7,1\n3,9,1\n", [[5, 7, 1], [3, 9, 1]], "x column_2 y", ["2 has no name"]),
    "even steps in all": ("a,b\n1,2\n3,4\n5,6\n", [[1, 2], [3, 4], [5, 6]], "a b", []),
    "months that turn back": ("month,x\n3,1\n1,2\n2,9\n", [[3, 1], [1, 2], [2, 9]], "month x", ["month is named as"]),
    "months in no order within years": (
        "year,month,v\n2019,3,7\n2019,2,4\n2020,5,2\n", [[3, 7], [2, 4], [5, 2]], "month v",
        [DATES, "month is named as"],
    ),
    "a single column that counts": ("t\n0\n1\n2\n", [[0], [1], [2]], "t", []),
    # A header of numbers
    "nameless columns of pandas": (",0,1\n0,5,2\n1,7,9\n", [[5, 2], [7, 9]], "0 1", ["names of columns", INDEX]),
    "nameless columns, no index": ("0,1,2\n.5,.1,.7\n", [[0.5, 0.1, 0.7]], "0 1 2", ["--header no if it is data"]),
    "days over years": (
        "day,2019,2020\n2020-01-01,5,2\n2020-01-02,7,9\n", [[5, 2], [7, 9]], "2019 2020", ["names of columns", DATES],
    ),
    "days over stations": (
        "day,101,117\n2020-01-01,5,2\n2020-01-02,7,9\n", [[5, 2], [7, 9]], "101 117", ["names of columns", DATES],
    ),
    "days as names": ("2019-01-01,2019-01-02\n5,2\n", [[5, 2]], "2019-01-01 2019-01-02", []),
    "whole numbers in no order": ("5,3,8\n1,9,2\n", [[5, 3, 8], [1, 9, 2]], "", []),
    "three tens": ("10,20,30\n5,7,1\n", [[10, 20, 30], [5, 7, 1]], "", []),
    "all rows count": ("0,1,2\n3,4,5\n6,7,8\n", [[0, 1, 2], [3, 4, 5], [6, 7, 8]], "", []),
    # Delimiters
    "tabs": ("a\tb\n1.5\t2\n", [[1.5, 2]], "a b", ["tabs"]),
    "bars": ("a|b\n1.5|2\n", [[1.5, 2]], "a b", ["vertical bars"]),
    "runs of spaces": ("a b\n1.5   2\n 3  4\n", [[1.5, 2], [3, 4]], "a b", ["spaces"]),
    "three digits under names": ("a b\n1 234\n5 678\n", [[1, 234], [5, 678]], "a b", ["spaces"]),
    "savetxt": (savetxt(), [[1.5, -2.5], [0.25, 4]], "", ["spaces"]),
    "savetxt with names": (savetxt(header="x y"), [[1.5, -2.5], [0.25, 4]], "x y", ["comment", "spaces", "x, y"]),
    "savetxt with commas": (savetxt(delimiter=", "), [[1.5, -2.5], [0.25, 4]], "", []),
    "semicolons": ("a;b\n1.5;2\n", [[1.5, 2]], "a b", [SEMICOLONS]),
    "a comma in a name": ("a;b, c\n1.5;2\n", [[1.5, 2]], "a b,_c", [SEMICOLONS]),
    "Excel's own line": ("sep=;\na;b\n1,5;2\n", [[1.5, 2]], "a b", [COMMAS]),
    "a delimiter at the end": ("a,b,\n1,2,\n", [[1, 2]], "a b", []),
    "a delimiter at the end of numbers": ("a;b\n1,5;2;\n3;4;\n", [[1.5, 2], [3, 4]], "a b", [SEMICOLONS, COMMAS]),
    "spaces in the name of a single column": ("wind speed\n1.5\n2\n", [[1.5], [2]], "wind_speed", []),
    "quoted cells": ('"a, b","c"\n"1.5",2\n', [[1.5, 2]], "a,_b c", []),
    # Decimal commas
    "decimal commas": ("a;b\n1,5;2,25\n-3;4\n", [[1.5, 2.25], [-3, 4]], "a b", [SEMICOLONS, COMMAS]),
    "German days": (
        "Tag;Wert\n01.02.2020;1,5\n02.02.2020;2\n", [[1.5], [2]], "Wert", [SEMICOLONS, COMMAS, DATES],
    ),
    "three decimals": ("a;b\n1,234;2,345\n", [[1.234, 2.345]], "a b", [SEMICOLONS, COMMAS]),
    "exponents": ("a;b\n1,5e-3;2E5\n", [[0.0015, 2e5]], "a b", [SEMICOLONS, COMMAS]),
    "decimal commas in quotes": ('a,b\n"1,5","2,5"\n', [[1.5, 2.5]], "a b", [COMMAS]),
    "one column of decimal commas": ("temp\n1,5\n2,5\n", [[1.5], [2.5]], "temp", [COMMAS]),
    "decimal commas between spaces": ("1,5 2,5\n3,5 4,25\n", [[1.5, 2.5], [3.5, 4.25]], "", ["spaces", COMMAS]),
    "two columns of whole numbers": ("1,5\n2,7\n", [[1, 5], [2, 7]], "", ["'1,5' are two columns .--decimal ,"]),
    # Comments, encodings, line ends
    "comments": ("# me\na,b\n1,2\n% mid\n3,4\n// end\n", [[1, 2], [3, 4]], "a b", ["3 comment .* line 1: '# me'"]),
    "a comment that names": ("#u,v\n5,1.5\n4,2.5\n", [[5, 1.5], [4, 2.5]], "u v", ["1 comment line is", "u, v"]),
    "a comment that does not": ("# u\n5,1.5\n4,2.5\n", [[5, 1.5], [4, 2.5]], "", ["1 comment line is"]),
    "a byte-order mark": ("\ufeffa,b\r\n1,2\r\n", [[1, 2]], "a b", []),
    "a byte-order mark before numbers": ("\ufeff1.5,2\r\n3,4\r\n", [[1.5, 2], [3, 4]], "", []),
    "Excel's Unicode text": ("a\tb\r\n1,5\t2\r\n".encode("utf-16"), [[1.5, 2]], "a b", ["UTF-16", "tabs", COMMAS]),
    "its other end first": (codecs.BOM_UTF16_BE + "a,b\n1,2\n".encode("utf-16-be"), [[1, 2]], "a b", ["UTF-16"]),
    "the line ends of an old Mac": ("a,b\r1,2\r3,4\r", [[1, 2], [3, 4]], "a b", []),
    "all line ends at once": ("a,b\r\n1,2\n3,4\r4,7", [[1, 2], [3, 4], [4, 7]], "a b", []),
    "blank lines": ("\n a , b \n\n1,2\n  \n3,4\n", [[1, 2], [3, 4]], "a b", []),
}  # fmt: skip

# Name -> the file, and what the message says.
REFUSED = {
    "years over decimals": ("2019,2020\n1.5,2.5\n", r"line 1 \(2019, 2020\) may be .* --header yes or --header no"),
    "years over whole numbers": ("2019,2020,2021\n15,20,13\n3,4,9\n", "--header yes or --header no"),
    "two years over whole numbers": ("2015,2020\n15,20\n3,9\n", "--header"),
    "a name over numbers beside a text that repeats": ("x,a\n1,a\n2,b\n", "may be names"),
    "a count over others": ("0,1,2\n2,1,1\n1,0,2\n", "--header"),
    "a count of two over decimals": ("0,1\n1.5,2.5\n", "--header"),
    "tens over whole numbers": ("10,20,30,40\n5,7,9,1\n", "--header"),
    "wavelengths": ("400.0,400.5,401.0,401.5\n.12,.15,.11,.3\n", "--header"),
    "one year over decimals": ("2019\n1.5\n1.7\n", "--header"),
    "years beside a text": ("city,2019\noslo,1\nbergen,3\n", "--header"),
    "one text in the first line alone": ("1,x\n2,3\n4,5\n", "--header"),
    "a comment after numbers": ("1,2 # x\n3,4\n", "--header"),
    "a nameless column that may be a feature": (
        ",a\n3.5,1\n4.1,2\n3.5,3\n", r"column 1 has no name .* --columns a without it, --columns 'column 1,a' with it",
    ),
    "even steps without a header": (
        "0.0,1.5\n0.1,1.7\n0.2,1\n", r"counts in even steps .* --columns 2 without it, --columns 1,2 with it",
    ),
    "many lines that rise": ("\n".join(f"{k * k}.5,{k * 7 % 5}" for k in range(8)), "goes one way all along"),
    "years that repeat": ("1959,1,2\n1959,2,5\n1960,1,4\n", "is it an index or a feature"),
    "days as numbers without a header": ("20200130,5\n20200131,7\n20200201,4\n", "is it an index or a feature"),
    "a text column": ("a,kind\n1,x\n2,y\n", "line 2, kind: .* got 'x'. Without the column: --columns a"),
    "several sequences": ("station,a\noslo,1\nbergen,2\noslo,3\n", "got 'oslo'. .* save each sequence by itself"),
    "an empty cell": ("a,b\n1,\n3,4\n", "line 2, b: expected a number; got ''. A value is missing: fill it in"),
    "not available": ("a,b\n1,2\nNA,4\n", "line 3, a: .*'NA'. A value is missing"),
    "a question mark": ("a,b\n1,?\n", "A value is missing"),
    "null": ("a,b\n1,null\n", "A value is missing"),
    "a truth": ("a,b\n1,True\n", "'True'. Write 1 and 0"),
    "both marks": ("a;b\n1.5;2,5\n", r"'2,5' \(line 2\) and '1.5' \(line 2\): which .* --decimal"),
    "thousands with a comma": ("a\tb\n1,234\t2,345\n", "in thousands, or has it a decimal comma.*--decimal ,"),
    "thousands with a point": ("a;b\n1.234,5;2\n", "'1.234,5'. Write thousands without"),
    "thousands with a space": ("a;b\n1 234;2\n", "'1 234'. Write thousands without"),
    "thousands in two cells": ("1 234\n5 678\n7 112\n", "'1 234' thousands, or two columns.*--delimiter space"),
    "thousands between commas": ("1,234\n5,678\n7,112\n", "or two columns"),
    "decimal commas or two columns": ("1,05\n2,75\n", "decimal comma .*two columns.* --decimal , or --delimiter ,"),
    "a count or decimal commas": ("1,5\n2,7\n3,2\n", "--decimal , or --delimiter ,"),
    "two delimiters": ("a b;c\n1 2;3\n", "got '1 2'. Say what separates the columns with --delimiter"),
    "days with hours and a count": (
        "2020-01-01 12,15\n2020-01-01 13,17\n", "separated by commas or spaces. Say which with --delimiter",
    ),
    "an unknown delimiter": ("a:b\n1:2\n", "'1:2'. Say what separates the columns with --delimiter"),
    "a title": ("My data\na,b\n1,2\n", "line 2, My data: .*--delimiter"),
    "UTF-16 without its mark": ("a,b\n1,2\n".encode("utf-16-le"), "not UTF-8 text: it holds a zero at letter 1"),
    "comments alone": ("# a\n", "nothing but comments"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_what_it_is_and_what_was_decided_is_said(name: str) -> None:
    text, values, names, notes = READ[name]
    found = read(text)
    np.testing.assert_array_equal(found.values, values)
    assert " ".join(title.replace(" ", "_") for title in found.names) == names
    assert len(found.notes) == len(notes), found.notes
    for note, words in zip(found.notes, notes, strict=True):
        assert note.startswith("x.csv: ")
        assert re.search(words, note), note


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_leaves_open_is_refused_with_what_settles_it(name: str) -> None:
    text, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        read(text)


# Name -> the file, what is said of it, and what it then holds.
SETTLED = {
    "years are names": ("2019,2020\n1.5,2.5\n", {"header": True}, [[1.5, 2.5]], ("2019", "2020")),
    "years are numbers": ("2019,2020\n1.5,2.5\n", {"header": False}, [[2019, 2020], [1.5, 2.5]], ()),
    "a name is a number": (",0\n0,1\n", {"header": True}, [[1]], ("0",)),
    "a comma is decimal": ("1,5\n2,7\n", {"decimal": ","}, [[1.5], [2.7]], ()),
    "a comma separates": ("1,05\n2,75\n", {"delimiter": ","}, [[1, 5], [2, 75]], ()),
    "a comma is decimal, not for thousands": ("a\tb\n1,234\t2\n", {"decimal": ","}, [[1.234, 2]], ("a", "b")),
    "spaces separate": ("1 234\n5 678\n7 112\n", {"delimiter": " "}, [[1, 234], [5, 678], [7, 112]], ()),
    "a space separates, a semicolon does not": ("a b;c\n1 2\n", {"delimiter": " "}, [[1, 2]], ("a", "b;c")),
    "a colon separates": ("a:b\n1:2\n", {"delimiter": ":"}, [[1, 2]], ("a", "b")),
    "a point is decimal": ("a;b\n1.5;2\n", {"decimal": "."}, [[1.5, 2]], ("a", "b")),
}


@pytest.mark.parametrize("name", SETTLED)
def test_what_is_said_of_a_file_settles_it_and_is_not_told_again(name: str) -> None:
    text, said, values, names = SETTLED[name]
    found = read(text, **said)
    np.testing.assert_array_equal(found.values, values)
    assert found.names == names
    assert not [note for note in found.notes if re.search("taken as|decimal comma", note)]


@pytest.mark.parametrize(
    ("text", "said", "words"),
    [
        ("a;b\n1,5;2\n", {"decimal": "."}, "got '1,5'. Say which is the decimal mark with --decimal"),
        ("a;b\n1;2\n", {"delimiter": ","}, "got '1;2'. Say what separates the columns with --delimiter"),
        ("a,b\n1,2\n", {"header": False}, "line 1, column 1: .* got 'a'. If it names the column: --header yes"),
        (",b\n1,2\n", {"header": False}, "line 1, column 1: .* got ''. If it names the column: --header yes"),
        ("1,b\n2,y\n", {"header": False}, "line 1, column 2: .* got 'b'. Without the column"),
        ("1,2\n", {"header": True}, r"a header \(1, 2\) and no rows"),
        ("a;b\n1.5;2\n", {"decimal": ","}, "got '1.5'. Say which is the decimal mark"),
    ],
)
def test_what_is_said_of_a_file_is_held_to(text: str, said: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(text, **said)


def test_columns_go_by_number_from_1_where_there_is_no_header() -> None:
    text = "0.0,1.5,7\n0.1,1.7,3\n0.2,1,5\n"
    found = read(text, ["3", "1"])
    np.testing.assert_array_equal(found.values, [[7, 0], [3, 0.1], [5, 0.2]])
    assert found.names == ("column 3", "column 1")
    for bad in ("0", "4", "-1", "b"):
        with pytest.raises(InputError, match=rf"no header; there it takes numbers from 1 to 3; got {bad}"):
            read(text, [bad])


@pytest.mark.parametrize("name", [name for name, (_, words) in REFUSED.items() if "--columns" in words])
def test_the_columns_that_a_message_offers_are_taken(name: str) -> None:
    """Copied from the message, the option works."""
    text, _ = REFUSED[name]
    with pytest.raises(InputError, match="--columns") as refused:
        read(text)
    offered = re.findall(r"--columns ('.*?'|\S+)", str(refused.value))
    assert offered
    for option in offered:
        read(text, option.strip("'").split(","))


def test_an_index_is_taken_where_it_is_asked_for() -> None:
    found = read(",a\n0,1.5\n1,1.7\n", ["column 1", "a"])
    np.testing.assert_array_equal(found.values, [[0, 1.5], [1, 1.7]])
    assert found.notes == ()


def test_where_columns_cannot_be_chosen_no_message_names_the_option() -> None:
    """A target has no --columns."""
    assert read(",a\n0,1.5\n1,1.7\n", selectable=False).notes == (
        "x.csv: column 1 is left out: it numbers the lines (0, 1)",
    )
    assert "--columns" not in read("x,y\n1,2\n2,3.5\n3,4\n", selectable=False).notes[0]
    with pytest.raises(
        InputError, match="Leave it out of the file if it is an index; give it a name in a header"
    ) as no:
        read("0.0,1.5\n0.1,1.7\n0.2,1\n", selectable=False)
    assert "--columns" not in str(no.value)


def test_a_table_of_many_columns_is_told_in_few_words() -> None:
    head = ",".join(["", *(f"c{k}" for k in range(40))])
    found = read(head + "\n" + "\n".join(",".join([str(i), *["1.5"] * 40]) for i in range(50)))
    assert found.values.shape == (50, 40)
    assert len(found.notes) == 1 and len(found.notes[0]) < 120


def test_text_in_another_encoding_and_packed_files_are_named_with_a_remedy(tmp_path, capsys) -> None:
    for name, data, said in (
        (
            "latin.dat",
            "größe,b\n1,2\n".encode("cp1252"),
            "text in another encoding than UTF-8 (Windows-1252?)",
        ),
        ("packed.csv.gz", b"\x1f\x8b\x08\x00", "it is compressed by gzip; gunzip unpacks it"),
    ):
        (tmp_path / name).write_bytes(data)
        assert main(["forward", "--input", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err
    assert main(["forward", "--input", "macrodata", "--columns", ""]) == 2
    assert "--columns '' names no column" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("x;y\n1.304;2.500\n1.777;3.125\n", True),
        ("x;y\n1.304;2.500\n0.777;3.125\n", False),
        ("x;y\n1.304;2\n17;3\n", True),
        ("x;y\n1.3;2.5\n1.7;3.1\n", False),
        ("x,y\n1.304,2.500\n1.777,3.125\n", False),
    ],
)
def test_points_that_may_stand_for_thousands_beside_semicolons_are_not_guessed(text, refused, tmp_path, capsys) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    assert main(["forward", "--input", str(path)]) == (2 if refused else 0)
    assert ("in thousands, or has it a decimal point?" in capsys.readouterr().err) == refused
    assert main(["forward", "--input", str(path), "--decimal", "."]) == 0


def test_a_first_column_that_counts_lines_is_said_whatever_the_others_do(tmp_path, capsys) -> None:
    path = tmp_path / "x.csv"
    path.write_text("n,a\n0,10\n1,12\n2,14\n3,16\n")
    assert main(["forward", "--input", str(path)]) == 0
    assert "n counts in even steps and is read as a feature; --columns a leaves it out" in capsys.readouterr().err
    path.write_text("0,10\n1,12\n2,14\n3,16\n")
    assert main(["forward", "--input", str(path)]) == 2
    assert "is it an index or a feature?" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[[1.5, 2], [3, 4]]", '{"a": [1, 2]}', '{"a": 1}\n{"a": 2}\n', "[1.5, 2]\n[3, 4]\n"])
def test_json_is_named_as_what_it_is(text, tmp_path, capsys) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    assert main(["forward", "--input", str(path)]) == 2
    assert "is JSON by its content" in capsys.readouterr().err
