r"""Trains any LightningModule on our lean, exact loop, in one process or many.

\b
    python -m curitorch.external.lean_trainer --model my_project.models:Net \\
        --data my_project.data:Digits --dataset_path digits.npz --epochs 3 --run_dir runs/first
\b
Options, run directory, journal and checkpoints are those of curitorch.external.trainer, which does
the same with --engine lean. What of a project the loop cannot honour is refused at once, each with
its file and line. Options of the loop alone go with --trainer_args, for example
'{"exact": "world"}' or '{"monitor": "val_loss", "patience": 3}'.
"""

from .trainer import program

main = program(__doc__, engine="lean")

if __name__ == "__main__":
    main()
