"""An experiment of somebody whose packages have the names of ours."""

import curifactory as cf
from external.files import count_lines
from stages.own import make_points, train


def run(param_sets, manager):
    for params in param_sets:
        report(train(make_points(cf.Record(manager, params))))


@cf.stage(["points", "run"], [])
def report(record, points, run):
    import curitorch.external
    import external
    import params
    import stages

    print("LINES", count_lines(points))
    print("STEP", run.manifest.step)
    print(run.log())
    print("CURITORCH", curitorch.external.__file__)
    for package in (params, stages, external):
        for place in set(package.__path__):  # the folder is on sys.path twice
            print("OWN", place)
