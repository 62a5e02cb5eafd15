"""Unmodified training scripts that are saved and go on where they were interrupted.

    LATTICE_AUTOPATCH=torch LATTICE_CHECKPOINT_TYPE=local LATTICE_CHECKPOINT_CONFIG=root=ckpt \
        python train.py
    python -m curitorch.external.autopatch train.py

The script's own `for` and `while` loops, and the statements in them, are rewritten as it is
compiled (`rewriting`), so that one can say where it is between two iterations and get there again;
what its variables hold is saved by `values`. See docs/autopatch.md.
"""
