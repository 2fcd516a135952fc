import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mersuite.errors import DataError
from mersuite.formats import safe_npz
from mersuite.formats.safe_npz import read_label_npz, read_npz, write_label_npz

CORPORA = {
    "train_corpus": {"sample_00000000": {"emo": "happy"}, "samplenew_00006611": {"emo": "worried", "val": -1.5}},
    "test1_corpus": {"samplenew3_00000058": {"emo": "neutral"}},
}


class Calls:
    """Pickles to a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def boxed(value: Any) -> np.ndarray:
    array = np.empty((), object)
    array[()] = value
    return array


def save(path: Path, **values: Any) -> Path:
    np.savez(path, **{key: boxed(value) for key, value in values.items()})
    return path


def write_member(path: Path, content: bytes, name: str = "train_corpus.npy") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path


def object_member(pickled: bytes) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + pickled


# ---- what is read


def test_labels_come_back_as_they_were_written(tmp_path: Path):
    write_label_npz(tmp_path / "labels.npz", CORPORA)
    assert read_label_npz(tmp_path / "labels.npz", needed=("train_corpus", "test1_corpus")) == CORPORA
    assert [item.name for item in tmp_path.iterdir()] == ["labels.npz"]


def test_written_labels_are_what_numpy_reads_from_the_organisers_files(tmp_path: Path):
    write_label_npz(tmp_path / "labels.npz", CORPORA)
    with np.load(tmp_path / "labels.npz", allow_pickle=True) as archive:  # the organisers' program: [key].tolist()
        assert archive["train_corpus"].shape == ()
        assert {key: archive[key].tolist() for key in archive} == CORPORA


def test_the_same_labels_give_the_same_bytes(tmp_path: Path):
    for name in ("a.npz", "b.npz"):
        write_label_npz(tmp_path / name, CORPORA)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
def test_every_pickle_protocol_of_old_and_new_numpy_is_read(tmp_path: Path, protocol: int, package: str):
    value = {"a": {"emo": np.str_("sad"), "val": np.float32(0.25), "vector": np.arange(6.0).reshape(2, 3).T}}
    pickled = pickle.dumps(boxed(value), protocol)
    other = "numpy.core" if package == "numpy._core" else "numpy._core"
    if protocol < 4:  # from 4 on names have their length before them
        pickled = pickled.replace(f"c{other}.".encode(), f"c{package}.".encode())
    found = read_npz(write_member(tmp_path / "f.npz", object_member(pickled)))["train_corpus"]
    assert found["a"]["emo"] == "sad"
    assert type(found["a"]["emo"]) is str
    assert found["a"]["val"] == 0.25
    np.testing.assert_array_equal(found["a"]["vector"], value["a"]["vector"])


def test_number_and_text_arrays_come_back_exactly(tmp_path: Path):
    arrays = {
        "single": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
        "big_endian": np.arange(3, dtype=">i4"),
        "text": np.array(["neutral", "怒り"]),
        "empty": np.zeros((0, 5)),
        "scalar": np.array(7),
    }
    np.savez(tmp_path / "f.npz", **arrays)
    found = read_npz(tmp_path / "f.npz")
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype
        assert found[key].flags.writeable


def test_containers_and_nested_arrays_are_read(tmp_path: Path):
    value = {"list": [1, (2.5, None)], "set": {1, 2}, "frozen": frozenset("a"), "flags": np.array([True, False])}
    value["objects"] = np.array([{"x": np.int64(3)}, "b"], object)
    found = read_npz(save(tmp_path / "f.npz", data=value))["data"]
    assert found["list"] == [1, (2.5, None)]
    assert (found["set"], found["frozen"]) == ({1, 2}, frozenset("a"))
    assert found["flags"].tolist() == [True, False]
    assert found["objects"].tolist() == [{"x": 3}, "b"]


# ---- what must never run


@pytest.mark.parametrize("call", ["os.system", "eval", "exec", "open", "Path.touch"])
def test_a_foreign_call_in_a_pickle_is_named_and_does_not_run(tmp_path: Path, call: str):
    marker = tmp_path / "ran"
    calls = {
        "os.system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Calls(exec, f"open({str(marker)!r}, 'w')"),
        "open": Calls(open, str(marker), "w"),
        "Path.touch": Calls(Path.touch, marker),
    }
    path = save(tmp_path / "f.npz", train_corpus={"a": {"emo": calls[call]}})
    with pytest.raises(DataError, match=r"train_corpus: holds a pickle that asks for .*, which was not run"):
        read_npz(path)
    assert not marker.exists()
    with np.load(path, allow_pickle=True) as archive:  # the same file does run where pickles are trusted
        archive["train_corpus"]
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("builtins", "getattr"),
        ("builtins", "dict.fromkeys"),
        ("builtins", "__import__"),
        ("operator", "attrgetter"),
        ("mersuite.formats.safe_npz", "read_npz"),
    ],
)
def test_names_outside_the_list_are_refused_even_in_known_modules(tmp_path: Path, module: str, name: str):
    pickled = (
        pickle.PROTO
        + b"\x04"
        + b"".join(pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode() for text in (module, name))
    )
    path = write_member(tmp_path / "f.npz", object_member(pickled + pickle.STACK_GLOBAL + pickle.STOP))
    with pytest.raises(DataError, match=f"asks for {module}.{name}, which was not run"):
        read_npz(path)


def test_a_pickle_that_points_outside_the_file_is_refused(tmp_path: Path):
    path = write_member(tmp_path / "f.npz", object_member(b"Pa_name\n."))
    with pytest.raises(DataError, match="points outside the file"):
        read_npz(path)


@pytest.mark.parametrize("change", ["short", "fields", "objects as bytes"])
def test_an_array_that_lies_about_its_memory_is_refused(tmp_path: Path, change: str):
    raw: Any = b"\0" * 8
    state: tuple[Any, ...] = (3, "<", None, None, None, -1, -1, 0)
    code = "f8"
    if change == "short":
        raw = b"\0" * 7
    elif change == "fields":
        state = (3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 63)
    else:
        code = "O8"
    held = Pickled("numpy", "dtype", (code, False, True), state)
    array = Pickled("numpy.core.multiarray", "_reconstruct", (), (1, (1,), held, False, raw))
    stream = io.BytesIO()
    PicklerByName(stream, 2).dump(array)
    path = write_member(tmp_path / "f.npz", object_member(stream.getvalue()))
    if change == "objects as bytes":  # bytes are taken as a list of numbers, never as addresses
        with pytest.raises(DataError, match="holds a damaged pickle"):
            read_npz(path)
        return
    with pytest.raises(DataError, match=r"do not make an array|arrays with fields are not read"):
        read_npz(path)


class Pickled:
    """Pickles to `module.name(*arguments)` with a state, for things that cannot be built here."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...], state: Any) -> None:
        self.parts = module, name, arguments, state


class Named:
    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__qualname__ = module, name

    def __call__(self) -> None:
        raise RuntimeError("only its name is pickled")


class PicklerByName(pickle._Pickler):
    def save_by_name(self, value: Pickled) -> None:
        module, name, arguments, state = value.parts
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.save(arguments)
        self.write(pickle.REDUCE)
        self.save(state)
        self.write(pickle.BUILD)

    dispatch = pickle._Pickler.dispatch | {Pickled: save_by_name}


# ---- what would not fit into memory


def nested(levels: int) -> list[Any]:
    value: list[Any] = ["x"] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


def test_lists_that_share_their_content_stay_as_small_as_the_file(tmp_path: Path):
    found = read_npz(save(tmp_path / "f.npz", data={"a": nested(40)}))["data"]["a"]  # 10 ** 41 texts, if copied
    assert found[0] is found[9]
    for _ in range(40):
        found = found[3]
    assert found == ["x"] * 10


def test_a_message_about_wrong_labels_does_not_hold_them_all(tmp_path: Path):
    with pytest.raises(DataError, match=r"each, such as .*, got 'a': list$"):
        read_label_npz(save(tmp_path / "f.npz", train_corpus={"a": nested(40)}))


def test_a_file_that_unpacks_to_more_than_fits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez_compressed(tmp_path / "f.npz", a=np.zeros(300_000, np.uint8), b=np.zeros(300_000, np.uint8))
    assert read_npz(tmp_path / "f.npz")["b"].shape == (300_000,)
    monkeypatch.setattr(safe_npz, "MAX_SIZE_BYTES", 2**19)
    with pytest.raises(DataError, match=r"f\.npz: holds 0\.000559 GiB, need .* or less; download it again"):
        read_npz(tmp_path / "f.npz")


def test_empty_texts_without_number_are_refused(tmp_path: Path):
    stream = io.BytesIO()
    header = {"descr": "<U0", "fortran_order": False, "shape": (10**13,)}
    np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(DataError, match=r"a: holds .* GiB, need 1 or less"):
        read_npz(write_member(tmp_path / "f.npz", stream.getvalue(), "a.npy"))


# ---- damaged files


def test_damage_of_another_compression_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", bytes(range(256)) * 20)
    content = bytearray((tmp_path / "f.npz").read_bytes())
    content[60:90] = b"\xff" * 30
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"f\.npz: not a readable npz file"):
        read_npz(tmp_path / "f.npz")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        read_npz(tmp_path / "none.npz")
    with pytest.raises(DataError, match="is a folder, need an npz file"):
        read_npz(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_off_file_is_refused(tmp_path: Path, share: float):
    write_label_npz(tmp_path / "whole.npz", CORPORA)
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"cut\.npz: not a readable npz file"):
        read_npz(tmp_path / "cut.npz")


def test_a_flipped_bit_is_noticed(tmp_path: Path):
    write_label_npz(tmp_path / "f.npz", CORPORA)
    content = bytearray((tmp_path / "f.npz").read_bytes())
    content[len(content) // 4] ^= 0x10
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"f\.npz"):
        read_npz(tmp_path / "f.npz")


def test_a_damaged_pickle_is_refused(tmp_path: Path):
    pickled = pickle.dumps(boxed(CORPORA), 2)
    path = write_member(tmp_path / "f.npz", object_member(pickled[: len(pickled) // 2]))
    with pytest.raises(DataError, match="train_corpus: holds a damaged pickle"):
        read_npz(path)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"notes\.txt: not a \.npy array"):
        read_npz(write_member(tmp_path / "f.npz", b"hello, not an array", "notes.txt"))


def test_arrays_with_fields_are_refused(tmp_path: Path):
    np.savez(tmp_path / "f.npz", table=np.zeros(3, [("a", "f4"), ("b", "i4")]))
    with pytest.raises(DataError, match=r"table: arrays of .* are not read, only numbers and text"):
        read_npz(tmp_path / "f.npz")


def test_a_pickle_in_place_of_an_array_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="need a pickled array, got dict"):
        read_npz(write_member(tmp_path / "f.npz", object_member(pickle.dumps({"a": 1}))))


# ---- label files that hold something else


def test_a_missing_corpus_is_named_beside_those_that_are_there(tmp_path: Path):
    write_label_npz(tmp_path / "f.npz", CORPORA)
    with pytest.raises(DataError, match="has no test2_corpus; the keys that are there: test1_corpus, train_corpus"):
        read_label_npz(tmp_path / "f.npz", needed=("train_corpus", "test2_corpus"))


def test_an_npz_of_arrays_is_no_label_file(tmp_path: Path):
    np.savez(tmp_path / "f.npz", features=np.zeros(3))
    with pytest.raises(DataError, match="features: need a dictionary of clip name to labels, got ndarray"):
        read_label_npz(tmp_path / "f.npz")


def test_labels_without_names_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"need clip names with a dictionary each, such as .*, got 'a': 'happy'"):
        read_label_npz(save(tmp_path / "f.npz", train_corpus={"a": "happy"}))


def test_an_npz_without_members_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w"):
        pass
    with pytest.raises(DataError, match="has no train_corpus; the keys that are there: none"):
        read_label_npz(tmp_path / "f.npz")
