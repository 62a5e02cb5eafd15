"""The functions, used as PeriFlow's are: what it documents, and what it accepts but cannot mean."""

import json
import math
import re

import pytest

ERRORS = """
    def tell(what, call, *arguments, **named):
        try:
            call(*arguments, **named)
            print(f"{what} OK")
        except Exception as error:
            kinds = "/".join(k.__name__ for k in type(error).__mro__[:-3])
            print(f"{what} {kinds} {error}\\n", end="")  # in one piece: ranks share the output
"""

RULES = ERRORS + (
    """
    for name in ("start_step", "end_step", "train_step", "metric", "upload_checkpoint",
                 "is_emergency_save"):
        tell(name, getattr(pf, name), *([{}] if name == "metric" else []))
    for total in (-5, 0, "abc", 3.0, True, float("nan")):
        tell("total", pf.init, total)
    tell("total", pf.init, 5, processed_steps=5)
    tell("init", pf.init, 10, "my.log")
    tell("again", pf.init, 10)
    tell("end", pf.end_step)
    tell("start", pf.start_step)
    tell("start", pf.start_step)
    tell("end", pf.end_step)
    tell("end", pf.end_step)
    for value in ([1, 2], 3, "text", {1: 2}, {"a": object()}, {"a": b"x"}, {"a": 1j}, {"a": {3}}):
        tell("metric", pf.metric, value)
    try:
        with pf.train_step():
            raise KeyError("boom")
    except KeyError as error:
        print("the error passes", error)
    tell("start", pf.start_step)
    tell("end", pf.end_step)
"""
)


def said(output: str) -> list[str]:
    return output.splitlines()


@pytest.mark.parametrize("python", [(), ("-O",)], ids=["python", "python -O"])
@pytest.mark.parametrize("mode", ["local", "managed"])
def test_what_cannot_be_meant_is_an_error_at_the_call_in_both_modes(scripts, mode, python):
    output, _ = getattr(scripts, mode)().run(RULES, python=python)
    lines = said(output)
    for name, line in zip(
        ("start_step", "end_step", "train_step", "metric", "upload_checkpoint", "is_emergency"),
        lines,
        strict=False,
    ):
        assert line.startswith(name)
        assert "NotInitialized/PeriFlowError/AssertionError" in line
        assert "must be called after pf.init()!" in line
    totals = [line for line in lines if line.startswith("total")]
    assert len(totals) == 7
    assert all(line.startswith("total PeriFlowError") for line in totals)
    assert "current step = 0, total train step = -5" in totals[0]
    assert "'abc', expected a whole number" in totals[2]
    assert "current step = 5, total train step = 5" in totals[6]
    rest = lines[lines.index("init OK") + 1 :]
    assert re.match("again PeriFlowError init.. was called before", rest[0])
    assert "end PeriFlowError Cannot call `end_step` before calling `start_step`" in rest[1]
    assert rest[2] == "start OK"
    assert rest[3].startswith("start PeriFlowError Step already started")
    assert rest[4] == "end OK"
    assert rest[5].startswith("end PeriFlowError Cannot call")
    metrics = [line for line in rest if line.startswith("metric")]
    assert len(metrics) == 8
    assert all(line.startswith("metric PeriFlowError metric() got ") for line in metrics)
    assert rest[-3:] == ["the error passes 'boom'", "start OK", "end OK"]


VALUES = """
    import numpy as np, torch
    pf.init(10, "my.log")
    with pf.train_step():
        pf.metric({
            "tensor": torch.tensor(0.5, requires_grad=True), "bf16": torch.tensor([1.5]).bfloat16(),
            "half": torch.tensor([[2.5]], dtype=torch.float16), "long": torch.tensor(7),
            "np32": np.float32(0.25), "np64": np.float64(0.125), "int": np.int64(3),
            "flag": np.bool_(True), "one": np.array([9.0]), "nan": float("nan"),
            "inf": torch.tensor(float("inf")), "less": -np.inf, "text": "ok", "none": None,
            "list": [1, np.float32(2.0)], "deep": {"a": torch.tensor(1)},
        })
    try:
        pf.metric({"loss": torch.ones(3)})
    except pf.PeriFlowError as error:
        print(error)
"""
EXPECTED = {
    **{"tensor": 0.5, "bf16": 1.5, "half": 2.5, "long": 7, "np32": 0.25, "np64": 0.125, "int": 3},
    **{"flag": True, "one": 9.0, "text": "ok", "none": None, "list": [1, 2.0], "deep": {"a": 1}},
}


def refuse(constant):
    raise AssertionError(f"{constant} is not valid JSON")


def test_tensors_and_numpys_numbers_are_numbers_and_not_finite_ones_are_valid_json(scripts):
    output, _ = scripts.local().run(VALUES)
    [line] = (scripts.folder / "my.log").read_text().splitlines()
    written = json.loads(line, parse_constant=refuse)
    ends = {name: written.pop(name) for name in ("nan", "inf", "less")}
    assert ends == {"nan": "NaN", "inf": "Infinity", "less": "-Infinity"}
    assert written == EXPECTED
    assert "got 3 values for 'loss', expected one" in output


def test_the_journal_gives_not_finite_numbers_back_as_numbers(scripts):
    managed = scripts.managed()
    managed.run(VALUES)
    [event] = managed.events("metric")
    values = event["metrics"]
    assert math.isnan(values.pop("nan"))
    assert (values.pop("inf"), values.pop("less")) == (math.inf, -math.inf)
    assert values == EXPECTED
    for line in (scripts.run_dir / "journal.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_locally_metrics_are_json_lines_as_given_and_uploads_do_nothing(scripts):
    _, complaints = scripts.local().run("""
        (open("mine.log", "w")).write('{"old": 1}\\n')
        pf.init(None, "mine.log")
        for step in range(2):
            with pf.train_step():
                pf.upload_checkpoint(); pf.upload_checkpoint()
            pf.metric({"iteration": step, "loss": 1.0})
            assert pf.is_emergency_save() is False
            assert len(open("mine.log").read().splitlines()) == step + 2  # there at once
        pf.upload_checkpoint()
    """)
    lines = [json.loads(line) for line in (scripts.folder / "mine.log").read_text().splitlines()]
    assert lines == [{"old": 1}, {"iteration": 0, "loss": 1.0}, {"iteration": 1, "loss": 1.0}]
    assert complaints.count("runs locally") == 1
    assert sorted(p.name for p in scripts.folder.iterdir()) == ["mine.log", "script.py"]


def test_locally_the_file_comes_with_the_first_metric_and_its_folder_has_to_be_there(scripts):
    output, _ = scripts.local().run("""
        pf.init()
        print(sorted(os.listdir()))
        pf.metric({"a": 1})
        print(sorted(os.listdir()))
    """)
    before, after = (eval(line) for line in output.splitlines())
    assert before == ["script.py"]
    assert re.fullmatch(r"periflow_trainer_\d{10}\.log", after[0])
    output, _ = scripts.local().run("""
        pf.init(local_log_name="not/there.log")
        try:
            pf.metric({"a": 1})
        except FileNotFoundError as error:
            print(error)
    """)
    assert "local_log_name" in output


def test_locally_each_rank_has_a_file_of_its_own_without_torch_distributed(scripts):
    _, complaints = scripts.local().run(
        'pf.init()\npf.metric({"rank": os.environ["RANK"]})', ranks=2
    )
    logs = sorted(scripts.folder.glob("periflow_trainer_*.log"), key=lambda p: p.stem[-1])
    assert [path.stem[-2:] for path in logs] == ["_0", "_1"]
    assert [json.loads(path.read_text()) for path in logs] == [{"rank": "0"}, {"rank": "1"}]
    assert complaints.count("runs locally") == 1


@pytest.mark.parametrize("value", ["0", "true", ""])
def test_only_1_enables_periflows_own_variables(scripts, value):
    _, complaints = scripts.local(PERIFLOW_ENABLED=value).run("pf.init(3)")
    assert "runs locally" in complaints


def test_periflows_variables_are_asked_for_in_their_order_and_honoured(scripts):
    values = {"WORLD_SIZE": "16", "NODE_RANK": "1", "NUM_NODES": "4", "PROCESSED_ITERS": "4"}
    given: dict[str, str] = {"PERIFLOW_ENABLED": "1", "RANK": "0"}
    for name, value in values.items():
        process = scripts.local(**given).start("pf.init(10)")
        _, err = process.communicate(timeout=200)
        assert process.returncode == 1
        assert f"PeriFlowInternalError: Environment variable '{name}' should be set" in err
        given[name] = value
    for total, sentence in ((4, "current step = 4, total train step = 4"), (3, "total train")):
        process = scripts.local(**given).start(f"pf.init({total})")
        assert sentence in process.communicate(timeout=200)[1]
    process = scripts.local(**{**given, "NUM_NODES": "3"}).start("pf.init()")
    assert "16 is not divisible by 3" in process.communicate(timeout=200)[1]
    process = scripts.local(**{**given, "PROCESSED_ITERS": "x"}).start("pf.init()")
    assert "PROCESSED_ITERS is 'x'" in process.communicate(timeout=200)[1]


def test_with_periflows_variables_steps_go_on_and_uploads_go_beside_the_directory(scripts):
    ours = {"PERIFLOW_ENABLED": "1", "WORLD_SIZE": "1", "NODE_RANK": "0", "NUM_NODES": "1"}
    saves = scripts.folder / "saves"
    saves.mkdir()
    scripts.local(**ours, PROCESSED_ITERS="4", CKPT_DIR=str(saves)).run("""
        pf.init(6)
        for _ in range(2):
            with pf.train_step():
                pf.metric({"loss": 0.5, "note": "text", "step": 99, "rank": 9, "local_rank": 9})
        open("saves/a.pt", "w").write("weights")
        pf.upload_checkpoint()
    """)
    run = saves.with_suffix(".run")
    from curitorch.external.rundir import TrainingRun

    events = TrainingRun(run).events()
    assert [e["step"] for e in events if e["event"] == "step"] == [5, 6]
    metrics = [e for e in events if e["event"] == "metric"]
    assert [e["step"] for e in metrics] == [5, 6]
    assert all(e["metrics"] == {"loss": 0.5, "note": "text"} for e in metrics)
    assert (run / "checkpoints/step-00000006/a.pt").read_text() == "weights"
    assert [a.outcome for a in TrainingRun(run).attempts()] == ["complete"]


def test_managed_steps_have_numbers_times_and_a_plan(scripts):
    managed = scripts.managed(PROCESSED_ITERS="7")
    output, complaints = managed.run("""
        began = time.perf_counter()
        pf.init(total_train_steps=10)
        for _ in range(3):
            with pf.train_step():
                time.sleep(0.02)
        print("torch" in sys.modules, "lightning" in sys.modules, time.perf_counter() - began)
    """)
    *imported, seconds = output.split()
    assert imported == ["False", "False"]
    assert complaints == ""
    assert [e["event"] for e in managed.events()] == [
        *("attempt", "plan", "step", "step", "step", "complete")
    ]
    assert managed.events("attempt")[0]["resume_step"] == 7
    assert managed.events("plan")[0]["steps"] == 10
    steps = managed.events("step")
    assert [e["step"] for e in steps] == [8, 9, 10]
    assert all(e["seconds"] >= 0.02 for e in steps)
    assert sum(e["seconds"] for e in steps) < float(seconds)


def test_the_package_imports_neither_torch_nor_anything_of_ours_until_it_is_asked(scripts):
    output, _ = scripts.local().run("""
        print(sorted(n for n in sys.modules if n.startswith("curitorch.external.sdk.")))
        print(sorted(pf.__all__ and [n for n in dir(pf) if not n.startswith("_")])[-7:])
        print("torch" in sys.modules)
        try:
            pf.no_such_name
        except AttributeError as error:
            print(error)
    """)
    modules, names, torch, error = output.splitlines()
    assert (modules, torch) == ("[]", "False")
    assert "'upload_checkpoint'" in names
    assert "no_such_name" in error


def test_it_works_in_threads_in_a_running_loop_and_beside_forked_workers(scripts):
    managed = scripts.managed()
    _, complaints = managed.run("""
        import asyncio, threading, torch
        from torch.utils.data import DataLoader
        class Data(torch.utils.data.Dataset):
            def __len__(self): return 8
            def __getitem__(self, i):
                pf.metric({"from a worker": i})  # goes nowhere: the parent is the one that reports
                assert not pf.is_emergency_save()
                return i
        async def train():
            pf.init(4)
            for batch in DataLoader(Data(), 2, num_workers=2, multiprocessing_context="fork"):
                with pf.train_step():
                    await asyncio.sleep(0)
        asyncio.run(train())
        def report(n):
            for i in range(500):
                pf.metric({f"t{n}": i})
        threads = [threading.Thread(target=report, args=(n,)) for n in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        if os.fork() == 0:
            sys.exit()  # runs the handlers of exit: nothing is written twice
        os.wait()
    """)
    assert complaints == ""
    assert [e["step"] for e in managed.events("step")] == [1, 2, 3, 4]
    metrics = managed.events("metric")
    assert len(metrics) == 2000
    for n in range(4):
        own = [e["metrics"][f"t{n}"] for e in metrics if f"t{n}" in e["metrics"]]
        assert own == list(range(500))
    assert len(managed.events("complete")) == 1


def test_metrics_may_be_called_as_anything_and_are_a_table(scripts):
    from curitorch.external.rundir import TrainingRun
    from curitorch.stages.report import curves

    scripts.managed().run("""
        pf.init()
        for _ in range(3):
            with pf.train_step():
                pass
            pf.metric({"time": 3.5, "attempt": "first", "epoch": 2, "loss": 1.0, "layers": [1, 2]})
    """)
    table = TrainingRun(scripts.run_dir).metrics()
    assert table["metric/time"].tolist() == [3.5] * 3
    assert table["metric/attempt"].tolist() == ["first"] * 3
    assert table["attempt"].tolist() == [0] * 3
    assert table["epoch"].tolist() == [2] * 3
    assert set(curves(table)) == {"loss", "metric/time"}


def test_a_script_that_fails_is_not_said_to_be_complete(scripts):
    process = scripts.managed().start("pf.init(3)\npf.start_step()\nraise ValueError('bad')")
    assert process.wait(200) == 1
    assert [e["event"] for e in scripts.events()] == ["attempt", "plan"]


def test_every_rank_gets_the_same_error_at_the_same_call(scripts):
    output, _ = scripts.managed().run(
        ERRORS
        + """
    rank = os.environ["RANK"]
    tell(rank + " total", pf.init, -1)
    pf.init(5)
    tell(rank + " metric", pf.metric, {"x": object()})
    pf.start_step()
    open(os.environ["CKPT_DIR"] + "/a.pt", "w").write("1")
    pf.upload_checkpoint()
    tell(rank + " upload", pf.upload_checkpoint)
    """,
        ranks=2,
    )
    lines = [
        sorted(line[2:] for line in output.splitlines() if line.startswith(rank)) for rank in "01"
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 3
    assert all("PeriFlowError" in line for line in lines[0])
