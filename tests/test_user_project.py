"""curitorch beside a user's own packages called params, stages and external."""

import curitorch.external


def test_a_users_packages_of_the_same_names_work_beside_ours(a_users_project, tmp_path):
    ran = a_users_project.run("own", "-p", "mine", witnesses=tmp_path / "first")
    assert ran.returncode == 0, ran.output
    lines = ran.output.splitlines()
    assert "LINES 24" in lines
    assert "STEP 6" in lines
    assert lines.count(f"CURITORCH {curitorch.external.__file__}") == 2  # here and in the trainer
    own = {a_users_project.path / name for name in ("params", "stages", "external")}
    assert {f"OWN {path}" for path in own} == {line for line in lines if line.startswith("OWN ")}
