"""Lists of instances: VNN-COMP's files, folders, Python's own; what is none is one clear line."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from zonocuda.fleet import Instance, read_instances


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(folder: Path, text: str | bytes, name: str = "instances.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def pairs(found: list[Instance]) -> list[tuple[str, str]]:
    return [one.names for one in found]


def test_a_list_is_read_relative_to_its_folder_with_its_own_times(tmp_path: Path) -> None:
    touch(tmp_path, "onnx/a.onnx", "vnnlib/p.vnnlib", "vnnlib/q.vnnlib")
    path = listed(tmp_path, "onnx/a.onnx,vnnlib/p.vnnlib,116\n\n ./onnx/a.onnx , vnnlib/q.vnnlib\n")
    first, second = read_instances(path)
    assert first == Instance(
        tmp_path / "onnx/a.onnx", tmp_path / "vnnlib/p.vnnlib", 116.0, ("onnx/a.onnx", "vnnlib/p.vnnlib")
    )
    assert (second.names, second.timeout) == (("./onnx/a.onnx", "vnnlib/q.vnnlib"), None)
    assert read_instances(tmp_path) == [first, second], "a folder with a list is that list"


def test_columns_may_have_names_in_any_order(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "p.vnnlib")
    (one,) = read_instances(listed(tmp_path, "truth,vnnlib,timeout_s,onnx\nsat,p.vnnlib,5,a.onnx\n"))
    assert (one.names, one.timeout) == (("a.onnx", "p.vnnlib"), 5.0)


def test_compressed_files_are_found_under_either_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx.gz", "p.vnnlib", "q.vnnlib.gz")
    text = gzip.compress(b"a.onnx,p.vnnlib.gz,1\na.onnx.gz,q.vnnlib.gz,2\n")
    found = read_instances(listed(tmp_path, text, "instances.csv.gz"))
    assert [(one.net.name, one.spec.name) for one in found] == [("a.onnx.gz", "p.vnnlib"), ("a.onnx.gz", "q.vnnlib.gz")]
    assert read_instances(tmp_path) == found


def test_a_row_that_is_there_twice_is_one_instance(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "p.vnnlib")
    assert len(read_instances(listed(tmp_path, "a.onnx,p.vnnlib,1\na.onnx,p.vnnlib,1\n"))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no instances"),
        ("onnx,vnnlib\n", "has no instances"),
        ("net,prop\n", "line 1: must be network,property,seconds, or name the columns"),
        ("a.onnx,p.vnnlib\np.vnnlib,a.onnx\n", "line 2: must begin with a network .* got 'p.vnnlib' and 'a.onnx'"),
        ("a.onnx,p.vnnlib\na.onnx\n", "line 2: needs a network and a property, got 'a.onnx'"),
        ("a.onnx,p.vnnlib,0\n", "line 1: a time limit is a positive number of seconds, got '0'"),
        ("a.onnx,p.vnnlib,nan\n", "line 1: a time limit"),
        ("a.onnx,p.vnnlib,soon\n", "line 1: a time limit"),
        ("a.onnx,absent.vnnlib,1\n", "line 1: .*absent.vnnlib: there is no such file, also with .gz"),
        (b"a.onnx,p.vnnlib\n\xff\n", "is not a list of instances: .*utf-8"),
        (b"a.onnx,p.vnnlib\n\0\n", "is not a list of instances: holds a zero byte"),
        ("a.onnx," + "p" * 200_000 + "\n", "is not a list of instances: field larger"),
    ],
)
def test_what_is_no_list_is_one_line_that_names_the_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    touch(tmp_path, "a.onnx", "p.vnnlib")
    with pytest.raises(ValueError, match=message) as caught:
        read_instances(listed(tmp_path, text))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compressed_list_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a list of instances"):
        read_instances(listed(tmp_path, b"no gzip", "list.csv.gz"))
    with pytest.raises(ValueError, match="is not a list of instances"):
        read_instances(listed(tmp_path, gzip.compress(b"a,b")[:-9], "list.csv.gz"))


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(ValueError, match="is not a regular file"):
        read_instances(tmp_path / "list.csv")
    with pytest.raises(FileNotFoundError):
        read_instances(tmp_path / "absent.csv")


def test_in_a_folder_a_property_belongs_to_the_network_whose_name_it_begins_with(tmp_path: Path) -> None:
    touch(tmp_path, "nets/a.onnx", "nets/a_2.onnx.gz", "specs/a_1.vnnlib", "specs/a_2_1.vnnlib.gz", "specs/readme.md")
    assert pairs(read_instances(tmp_path)) == [
        ("nets/a.onnx", "specs/a_1.vnnlib"),
        ("nets/a_2.onnx.gz", "specs/a_2_1.vnnlib.gz"),
    ]


def test_an_only_network_has_every_property_and_folders_keep_names_apart(tmp_path: Path) -> None:
    touch(tmp_path, "one/net.onnx", "one/p.vnnlib", "one/q.vnnlib")
    assert pairs(read_instances(tmp_path / "one")) == [("net.onnx", "p.vnnlib"), ("net.onnx", "q.vnnlib")]
    touch(tmp_path, "two/net.onnx", "two/net_1.vnnlib", "one/net_1.vnnlib")
    (tmp_path / "one/p.vnnlib").unlink()
    (tmp_path / "one/q.vnnlib").unlink()
    assert pairs(read_instances(tmp_path)) == [
        ("one/net.onnx", "one/net_1.vnnlib"),
        ("two/net.onnx", "two/net_1.vnnlib"),
    ]


def test_a_property_that_could_belong_to_two_networks_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "b.onnx", "specs/p.vnnlib")
    with pytest.raises(ValueError, match=r"p.vnnlib: which network is it about\? it could belong to a.onnx and b.onnx"):
        read_instances(tmp_path)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "p.vnnlib")
    with pytest.raises(ValueError, match=r"holds 0 networks .* and 1 properties .*, and no instances\.csv"):
        read_instances(tmp_path)


def test_python_gives_instances_and_tuples(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "p.vnnlib")
    net, spec = tmp_path / "a.onnx", tmp_path / "p.vnnlib"
    first, second, third = read_instances([(net, spec), (str(net), str(spec), 3), Instance(net, spec, 4.0)])
    assert [one.timeout for one in (first, second, third)] == [None, 3.0, 4.0]
    assert {one.net for one in (first, second, third)} == {net}
    for wrong, message in (
        ([(net,)], "an instance is"),
        ([3], "an instance is"),
        ([(net, spec, -1)], "a time limit"),
        ([(net, tmp_path / "absent.vnnlib")], "there is no such file"),
        ([], "there are no instances"),
    ):
        with pytest.raises(ValueError, match=message):
            read_instances(wrong)  # type: ignore[arg-type]


# ---- functions of Python ---------------------------------------------------------------------------------------------


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """The name of a new module in a folder that is the current one."""
    name = f"listed_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    return name


def test_a_function_of_a_module_returns_the_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.onnx", "p.vnnlib", "q.vnnlib")
    text = (
        "from pathlib import Path\n"
        "def some():\n    for name in ('p', 'q'):\n        yield Path('a.onnx'), Path(f'{name}.vnnlib'), 7\n"
        "def folder():\n    return Path('.')\n"
    )
    name = module(tmp_path, monkeypatch, text)
    path = list(sys.path)
    found = read_instances(f"{name}:some")
    assert pairs(found) == [("a.onnx", "p.vnnlib"), ("a.onnx", "q.vnnlib")]
    assert {one.timeout for one in found} == {7.0}
    assert pairs(read_instances(f"{name}:folder")) == pairs(found)
    assert sys.path == path
    (tmp_path / f"{name}:some").write_text("a.onnx,p.vnnlib\n")
    assert len(read_instances(f"{name}:some")) == 1, "a file of that name is a list"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", "has no function absent"),
        ("number", "has no function number"),
        ("nothing", "must return a list's path or instances, got 'None'"),
        ("empty", "there are no instances"),
        ("wrong", r"an instance is \(net, spec\) or \(net, spec, seconds\), got 3"),
    ],
)
def test_a_function_that_returns_no_instances_is_one_line(
    function: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "number = 3\ndef nothing(): return None\ndef empty(): return []\ndef wrong(): return [3]\n"
    name = module(tmp_path, monkeypatch, text)
    with pytest.raises(ValueError, match=message) as caught:
        read_instances(f"{name}:{function}")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no_such_module:f: cannot be imported: No module named 'no_such_module'"):
        read_instances("no_such_module:f")
