"""Uploads: what a script saved goes into its store whole, from all ranks, or is counted as lost."""

import json
import os
import threading
import time

import pytest

from curitorch.external.sdk.restore import restore
from curitorch.external.sdk.saved_files import stored_names
from curitorch.external.sdk.uploads import Uploads
from curitorch.external.stores.local import LocalStore
from curitorch.external.stores.retention import Retention


class SlowStore(LocalStore):
    """A local store that waits for leave before it takes anything."""

    may_go_on = threading.Event()

    def put(self, *arguments, **named):
        assert self.may_go_on.wait(200)
        return super().put(*arguments, **named)


@pytest.fixture
def saves(tmp_path):
    folder = tmp_path / "saves"
    folder.mkdir()
    return folder


@pytest.fixture
def uploads(tmp_path, saves):
    """Return a function that makes the uploads of a rank; all are closed at the end."""
    made = []

    def make(rank=0, ranks=1, store=LocalStore, watched=True, **named):
        one = Uploads(
            lambda: store(tmp_path / "store"),
            folder=tmp_path / "meeting",
            rank=rank,
            world_size=ranks,
            **named,
        )
        if watched:
            one.watch(saves)
        made.append(one)
        return one

    yield make
    for one in reversed(made):
        one.close()


def content(tmp_path, step):
    folder = tmp_path / f"store/step-{step:08d}"
    return {path.name: path.read_text() for path in folder.iterdir()}


def details(tmp_path, step):
    return json.loads((tmp_path / f"store/step-{step:08d}.json").read_text())["details"]


def test_what_was_saved_since_the_last_time_is_one_checkpoint(tmp_path, saves, uploads):
    (saves / "old.pt").write_text("of another run")
    one = uploads()
    (saves / "a.pt").write_text("1")
    one.add(10, saves, details={"epoch": 1})
    (saves / "a.pt").write_text("22")
    (saves / "checkpoint-20/deep").mkdir(parents=True)
    (saves / "checkpoint-20/deep/b c.bin").write_text("b")
    one.add(20, saves, details={})
    one.close()
    assert content(tmp_path, 20) == {"a.pt": "22", "checkpoint-20.deep.b_c.bin": "b"}
    assert details(tmp_path, 20)["paths"] == {
        "a.pt": "a.pt",
        "checkpoint-20.deep.b_c.bin": "checkpoint-20/deep/b c.bin",
    }
    assert details(tmp_path, 10)["epoch"] == 1
    assert [c.step for c in LocalStore(tmp_path / "store").list()] in ([10, 20], [20])


def test_a_file_or_folder_can_be_named(tmp_path, saves, uploads):
    one = uploads()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "m.ckpt").write_text("m")
    (saves / "sub").mkdir()
    (saves / "sub/x.pt").write_text("x")
    one.add(1, elsewhere / "m.ckpt", details={})
    one.add(2, elsewhere, details={})
    one.add(3, saves / "sub", details={})
    one.close()
    assert content(tmp_path, 1) == {"m.ckpt": "m"}
    assert details(tmp_path, 2)["paths"] == {"elsewhere.m.ckpt": "elsewhere/m.ckpt"}
    assert details(tmp_path, 3)["paths"] == {"sub.x.pt": "sub/x.pt"}


def test_a_file_that_is_replaced_or_deleted_meanwhile_is_what_it_was(tmp_path, saves, uploads):
    SlowStore.may_go_on.clear()
    one = uploads(store=SlowStore)
    (saves / "first.pt").write_text("holds the thread up")
    one.add(1, saves, details={})
    (saves / "a.pt").write_text("of step 2")
    (saves / "b.pt").write_text("also of step 2")
    one.add(2, saves, details={})
    (saves / "new").write_text("of step 3")
    (saves / "new").replace(saves / "a.pt")
    (saves / "b.pt").unlink()
    one.add(3, saves, details={})
    SlowStore.may_go_on.set()
    one.close()
    assert content(tmp_path, 2) == {"a.pt": "of step 2", "b.pt": "also of step 2"}
    assert content(tmp_path, 3) == {"a.pt": "of step 3"}
    assert one.lost == 0


def test_small_files_are_read_at_once_and_may_be_written_over(tmp_path, saves, uploads):
    one = uploads()
    for step in range(1, 30):
        (saves / "a.pt").write_text("x" * step)
        one.add(step, saves, details={})
    one.close()
    assert [len(content(tmp_path, step)["a.pt"]) for step in range(1, 5)] == [1, 2, 3, 4]


def test_a_large_file_that_is_written_over_in_its_place_is_a_gap_and_never_a_mixture(
    tmp_path, saves, uploads, caplog, monkeypatch
):
    monkeypatch.setattr("curitorch.external.sdk.uploads.AT_ONCE", 3)
    SlowStore.may_go_on.clear()
    one = uploads(store=SlowStore)
    (saves / "first.pt").write_text("holds the thread up")
    one.add(1, saves, details={})
    (saves / "a.pt").write_text("of step 2")
    one.add(2, saves, details={})
    time.sleep(0.01)  # a tick of the file system's clock
    (saves / "a.pt").write_text("of step 3")
    one.add(3, saves, details={})
    SlowStore.may_go_on.set()
    one.close()
    assert not (tmp_path / "store/step-00000002.json").exists()
    assert content(tmp_path, 3) == {"a.pt": "of step 3"}
    assert one.lost == 1
    assert "was written over" in caplog.text


def test_a_store_that_fails_costs_a_warning_and_a_count_and_the_next_upload_works(
    tmp_path, saves, uploads, caplog
):
    one = uploads()
    (tmp_path / "store").write_text("not a directory")
    for step in (1, 2, 3):
        (saves / "a.pt").write_text("x" * step)
        one.add(step, saves, details={})
    while one.lost < 3:
        time.sleep(0.01)
    (tmp_path / "store").unlink()
    (saves / "a.pt").write_text("good")
    one.add(4, saves, details={})
    one.close()
    assert content(tmp_path, 4) == {"a.pt": "good"}
    assert len([r for r in caplog.records if "was not uploaded" in r.message]) == 1
    assert "3 uploads were lost" in caplog.text


def test_nothing_is_uploaded_without_a_lease_when_it_could_not_be_had_at_first(
    tmp_path, saves, uploads
):
    one = uploads()
    with LocalStore(tmp_path / "store") as store, store.lease("somebody-else"):
        for step in (1, 2):
            (saves / "a.pt").write_text("x" * step)
            one.add(step, saves, details={})
        while one.lost < 2:
            time.sleep(0.01)
    (saves / "a.pt").write_text("when it is free")
    one.add(3, saves, details={})
    one.close()
    assert content(tmp_path, 3) == {"a.pt": "when it is free"}
    assert one.lost == 2


def test_nothing_new_is_said_once_and_is_no_loss(saves, uploads, caplog):
    one = uploads()
    one.add(1, saves, details={})
    one.add(2, saves, details={})
    one.close()
    assert caplog.text.count("nothing was saved") == 1
    assert one.lost == 0


def test_only_so_many_checkpoints_stay(tmp_path, saves, uploads):
    one = uploads(retention=Retention(newest=2))
    for step in range(1, 6):
        (saves / "a.pt").write_text("x" * step)
        one.add(step, saves, details={})
        while not (tmp_path / f"store/step-{step:08d}.json").exists():
            time.sleep(0.01)
    one.close()
    assert [c.step for c in LocalStore(tmp_path / "store").list()] == [4, 5]


def test_shards_of_all_ranks_are_in_it_also_those_that_come_later(tmp_path, saves, uploads):
    first, second = uploads(0, 2), uploads(1, 2)
    (saves / "shard-0.pt").write_text("0")
    first.add(5, saves, details={})
    time.sleep(0.1)
    (saves / "shard-1.pt").write_text("1")
    second.add(5, saves, details={})
    closing = threading.Thread(target=first.close)
    closing.start()
    second.close()
    closing.join(200)
    assert content(tmp_path, 5) == {"shard-0.pt": "0", "shard-1.pt": "1"}
    assert not list((tmp_path / "meeting").glob("step-*"))  # taken


def test_what_rank_0_wrote_is_taken_though_another_rank_looked_while_it_did(
    tmp_path, saves, uploads
):
    first, second = uploads(0, 2), uploads(1, 2)
    (saves / "a.pt").write_text("a par")
    second.add(5, saves, details={})
    time.sleep(0.01)  # a tick of the file system's clock
    (saves / "a.pt").write_text("a part, and the rest")
    first.add(5, saves, details={})
    (saves / "a.pt").write_text("of a later step")
    closing = threading.Thread(target=second.close)
    closing.start()
    first.close()
    closing.join(200)
    assert content(tmp_path, 5) == {"a.pt": "a part, and the rest"}


def test_a_rank_that_never_calls_is_not_waited_for_once_it_has_ended(tmp_path, saves, uploads):
    first, second = uploads(0, 2, patience=1000), uploads(1, 2)
    (saves / "a.pt").write_text("0")
    second.close()
    first.add(5, saves, details={})
    first.close()
    assert content(tmp_path, 5) == {"a.pt": "0"}


def test_a_rank_ends_only_when_rank_0_has_taken_the_last_upload(tmp_path, saves, uploads):
    SlowStore.may_go_on.clear()
    first, second = uploads(0, 2, store=SlowStore), uploads(1, 2)
    (saves / "a.pt").write_text("0")
    for one in (first, second):
        one.add(5, saves, details={})
    waiting = threading.Thread(target=second.close)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    SlowStore.may_go_on.set()
    waiting.join(200)
    assert not waiting.is_alive()
    assert content(tmp_path, 5) == {"a.pt": "0"}


def test_names_for_stores_are_safe_and_no_two_alike():
    paths = ["a/b.pt", "a.b.pt", "../x", "ä ö", ".hidden", "-dash", "a" * 300, "b/" + "a" * 300]
    names = stored_names(paths)
    assert set(names) == set(paths)
    assert len(set(names.values())) == len(paths)
    from curitorch.external.stores.store import check_name

    for name in names.values():
        check_name(name, what="File")


def test_a_folder_is_brought_to_the_newest_valid_checkpoint(tmp_path, saves, uploads, recwarn):
    one = uploads(retention=None)
    (saves / "config.json").write_text("{}")
    (saves / "checkpoint-1").mkdir()
    (saves / "checkpoint-1/m.pt").write_text("one")
    one.add(1, saves, details={"time": time.time()})
    time.sleep(0.01)
    (saves / "last.pt").write_text("two")
    one.add(2, saves, details={"time": time.time()})
    one.close()
    time.sleep(0.01)
    (saves / "last.pt").write_text("tor")  # a save that was killed
    (saves / "checkpoint-3").mkdir()
    (saves / "checkpoint-3/m.pt").write_text("thr")
    store = LocalStore(tmp_path / "store")
    assert restore(store, saves, aside=tmp_path / "aside") == 2
    found = {p.relative_to(saves).as_posix(): p.read_text() for p in saves.rglob("*.*")}
    assert found == {"config.json": "{}", "checkpoint-1/m.pt": "one", "last.pt": "two"}
    assert not (saves / "checkpoint-3").exists()
    assert (tmp_path / "aside/checkpoint-3/m.pt").read_text() == "thr"
    (tmp_path / "store/step-00000002/last.pt").write_text("TWO")  # damaged in the store
    assert restore(store, saves, aside=tmp_path / "aside") == 1
    assert (saves / "checkpoint-1/m.pt").read_text() == "one"


def test_a_folder_comes_back_from_the_store_when_it_is_lost(tmp_path, saves, uploads):
    one = uploads()
    (saves / "deep").mkdir()
    (saves / "deep/a b.pt").write_text("x")
    one.add(7, saves, details={})
    one.close()
    target = tmp_path / "another machine"
    assert restore(LocalStore(tmp_path / "store"), target, aside=tmp_path / "aside") == 7
    assert (target / "deep/a b.pt").read_text() == "x"


def test_without_checkpoints_a_scripts_files_are_left_alone(tmp_path, saves):
    (saves / "own.pt").write_text("x")
    store = LocalStore(tmp_path / "store")
    assert restore(store, saves, aside=tmp_path / "aside") == 0
    assert os.listdir(saves) == ["own.pt"]


def test_a_sidecar_that_leads_out_of_the_folder_is_refused(tmp_path, saves):
    store = LocalStore(tmp_path / "store")
    (tmp_path / "f").write_text("x")
    store.put(1, {"f": tmp_path / "f"}, details={"paths": {"f": "../../etc/passwd"}})
    with pytest.raises(ValueError, match="not in"):
        restore(store, saves, aside=tmp_path / "aside")


def test_one_step_has_one_upload_and_no_directory_is_said_once(scripts):
    managed = scripts.managed()
    output, _ = managed.run("""
        pf.init(3)
        for inside in (True, False):
            pf.start_step()
            if inside:
                open(os.environ["CKPT_DIR"] + "/a.pt", "w").write("1"); pf.upload_checkpoint()
            pf.end_step()
            if not inside:
                open(os.environ["CKPT_DIR"] + "/a.pt", "w").write("22"); pf.upload_checkpoint()
            try:
                pf.upload_checkpoint()
            except pf.PeriFlowError as error:
                print(error)
    """)
    assert output.count("Checkpoint is already uploaded for the step") == 2
    assert [s["step"] for s in managed.sidecars()] == [1, 2]
    assert [s["details"]["save_type"] for s in managed.sidecars()] == ["NORMAL"] * 2
    assert [e["step"] for e in managed.events("checkpoint")] == [1, 2]
    _, complaints = scripts.managed(CKPT_DIR="").run("""
        pf.init()
        pf.upload_checkpoint(); pf.upload_checkpoint()
    """)
    assert complaints.count("`upload_checkpoint` does nothing because") == 1
