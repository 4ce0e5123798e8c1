"""Files of JSON lines: appended, continued after an interruption, read with torn ends."""

import json
import tempfile

import pytest

from rnnctl import InputError
from rnnctl.errors import RnnctlError
from rnnctl.files.jsonl import LineReader, LineWriter


def writer_of(line):
    if "by" not in line.record:
        raise InputError(f"{line.place}: whose is this?")
    return line.record["by"]


def reader(path):
    return LineReader(path, writer_of, "rnnctl.test")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lines.jsonl"


def append(path, *records):
    lines = LineWriter(path)
    lines.append(records)
    lines.close()


def test_lines_are_there_before_the_file_is_closed_and_are_strict_json(path):
    lines = LineWriter(path)
    lines.append([{"by": "a", "x": 1.0}, {"by": "a", "x": float("nan")}])
    first, second = path.read_text().splitlines()
    assert json.loads(first) == {"by": "a", "x": 1.0}
    assert json.loads(second) == {"by": "a", "x": None, "nonfinite": {"x": "nan"}}
    lines.append([{"by": "a", "x": 2.0}])
    lines.close()
    assert [line.record["x"] for line in reader(path)] == [1.0, None, 2.0]


def test_a_file_is_continued_and_a_torn_end_is_left_out_and_noted(path):
    append(path, {"by": "a", "x": 1}, {"by": "a", "x": 2})
    path.write_bytes(path.read_bytes()[:-5])
    append(path, {"by": "b", "x": 3})
    found = reader(path)
    assert [(line.record["by"], line.record["x"]) for line in found] == [("a", 1), ("b", 3)]
    assert found.notes == [f"{path}, line 2 is torn, as by an interruption, and is left out"]


def test_every_writer_may_leave_one_torn_line_and_no_more(path):
    append(path, {"by": "a", "x": 1}, {"by": "b", "x": 2})
    path.write_bytes(path.read_bytes()[:-5] + b"\n" + b'{"by": "c"')
    with pytest.raises(InputError, match="line 2 is no JSON object"):
        list(reader(path))


def test_a_torn_line_whose_writer_comes_again_is_an_error(path):
    append(path, {"by": "a", "x": 1}, {"by": "a", "x": 2}, {"by": "a", "x": 3})
    path.write_text(path.read_text().replace('"x": 2}', '"x": 2'))
    with pytest.raises(InputError, match=r"line 2 is no JSON object. Is this a file that rnnctl.test wrote\?"):
        list(reader(path))


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_has_no_line(path, text):
    path.write_text(text)
    found = reader(path)
    assert (list(found), found.notes) == ([], [])


def test_a_line_of_somebody_else_is_refused_with_its_place(path):
    append(path, {"by": "a"}, {"x": 1})
    with pytest.raises(InputError, match="line 2: whose is this"):
        list(reader(path))


def test_places_that_cannot_be_written_are_refused_and_a_full_disk_is_told(path, tmp_path):
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        LineWriter(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        LineWriter(tmp_path / "missing" / "lines.jsonl")
    lines = LineWriter(path)

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    lines.close()
    lines._file = Full()
    with pytest.raises(RnnctlError, match="No space left on device"):
        lines.append([{"by": "a"}])


def test_a_file_that_was_deleted_is_told_and_one_that_was_moved_goes_on(path, tmp_path):
    lines = LineWriter(path)
    path.rename(tmp_path / "moved.jsonl")
    lines.append([{"by": "a"}])
    (tmp_path / "moved.jsonl").unlink()
    with pytest.raises(RnnctlError, match="the file was deleted, with all that stood in it"):
        lines.append([{"by": "a"}])
    lines.close()


def test_what_never_had_a_name_is_written():
    with tempfile.TemporaryFile() as file:
        append(f"/proc/self/fd/{file.fileno()}", {"by": "a"})
        assert file.seek(0) == 0
        assert json.loads(file.read()) == {"by": "a"}


def test_another_process_than_the_one_that_opened_it_writes_nothing(path, monkeypatch):
    lines = LineWriter(path)
    with monkeypatch.context() as forked:
        forked.setattr("os.getpid", lambda: -1)
        lines.append([{"by": "a"}])
    assert path.read_bytes() == b""
    lines.append([{"by": "b"}])
    lines.close()
    assert [line.record for line in reader(path)] == [{"by": "b"}]
