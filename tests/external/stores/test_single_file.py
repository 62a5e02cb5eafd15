"""A checkpoint by itself: a file or directory that the caller names, and its sidecar."""

import os
import platform
import subprocess
import sys

import pytest

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import single_file
from curitorch.external.stores.single_file import draft, make_durable, measure, publish


def save(path, content, step=3):
    with draft(path) as temporary:
        if isinstance(content, dict):
            for name, data in content.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(data)
        else:
            temporary.write_bytes(content)
        make_durable(temporary)
        return publish(temporary, path, measure(temporary), step=step, details={"epoch": 1})


@pytest.mark.parametrize("name", ["best.ckpt", "epoch=3-val loss=0.5 é.ckpt", "without suffix"])
def test_a_file_goes_round_whatever_it_is_called(tmp_path, name):
    written = save(tmp_path / "new folder" / name, b"state")
    assert single_file.read(tmp_path / "new folder" / name) == written
    assert single_file.verify(tmp_path / "new folder" / name).details == {"epoch": 1}
    assert len(os.listdir(tmp_path / "new folder")) == 2
    single_file.remove(tmp_path / "new folder" / name)
    assert os.listdir(tmp_path / "new folder") == []


def test_a_directory_is_verified_with_all_its_files_and_their_names(tmp_path):
    path = tmp_path / "best.ckpt"
    save(path, {".metadata": b"m", "parts/0.bin": b"0", "parts/1.bin": b"1"})
    single_file.verify(path)
    (path / "parts/0.bin").rename(path / "parts/2.bin")
    with pytest.raises(UnreadableFile, match="altered"):
        single_file.verify(path)


def test_the_sidecar_of_an_older_curitorch_is_verified(tmp_path):
    path = tmp_path / "best.ckpt"
    for content, size, checksum in [
        (b"state", 5, "sha256:4ba69735ca53765ed6a709edb56c6ea236b7193a3b29a6b390c346f0f4340e4e"),
        (
            {".metadata": b"m", "parts/0.bin": b"0", "parts/1.bin": b"1"},
            3,
            "sha256:d65ba2eb3d3d8c93cb7b74045a44b20607a22661dbf8b7bc8e24f4763a3af3a8",
        ),
    ]:
        save(path, content)
        old = '{"details": {}, "files": {"checkpoint": {"bytes": SIZE, "checksum": "CHECKSUM"}}, '
        old += '"schema": 2, "step": 3}'
        old = old.replace("SIZE", str(size)).replace("CHECKSUM", checksum)
        single_file.sidecar_path(path).write_text(old)
        assert single_file.verify(path).step == 3
        altered = path / "parts/1.bin" if path.is_dir() else path
        altered.write_bytes(bytes(altered.stat().st_size))
        with pytest.raises(UnreadableFile, match="altered"):
            single_file.verify(path)
        single_file.remove(path)


@pytest.mark.parametrize("damage", [b"stat", b"statf", b"", None])
def test_a_torn_altered_or_missing_file_is_refused(tmp_path, damage):
    path = tmp_path / "best.ckpt"
    save(path, b"state")
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(UnreadableFile, match=r"missing|torn|altered"):
        single_file.verify(path)


def test_a_file_that_is_replaced_is_never_described_by_the_old_sidecar(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save(path, b"old", step=1)

    class Killed(BaseException):
        """What a kill between the two renames is like."""

    def killed(sidecar):
        raise Killed

    monkeypatch.setattr(single_file, "whole_file", killed)
    with pytest.raises(Killed):
        save(path, b"new", step=2)
    assert path.read_bytes() == b"new"
    with pytest.raises(FileNotFoundError):
        single_file.read(path)


def test_a_sidecar_of_a_store_is_not_taken_for_that_of_a_file(tmp_path):
    path = tmp_path / "step-00000003.ckpt"
    save(path, b"state")
    text = single_file.sidecar_path(path).read_text().replace('"checkpoint"', '"model.ckpt"')
    single_file.sidecar_path(path).write_text(text)
    with pytest.raises(UnreadableFile, match="of a store"):
        single_file.read(path)


def test_what_dead_writers_left_goes_with_the_next_save_and_living_ones_keep_theirs(tmp_path):
    program = """
import sys, time
from pathlib import Path
from curitorch.external.stores.single_file import draft
with draft(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)
"""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "a.ckpt")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        writers[0].kill()
        writers[0].wait()
        save(tmp_path / "b.ckpt", b"state")
        left = [name for name in os.listdir(tmp_path) if name.startswith(".")]
        assert len(left) == 1
        assert f"-{writers[1].pid}-" in left[0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


def test_what_another_machine_is_writing_is_left_alone(tmp_path):
    foreign = tmp_path / f".incomplete-not-{platform.node()}-1-00.ckpt"
    foreign.write_bytes(b"half")
    save(tmp_path / "b.ckpt", b"state")
    assert foreign.exists()
