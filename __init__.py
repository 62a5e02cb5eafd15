"""curitorch: train PyTorch models from a curifactory experiment, in processes of their own.

- `curitorch.params`: what a training run is told.
- `curitorch.external`: what runs in the trainer processes, and the files they write.
- `curitorch.cachers`: curifactory's side of those files.
- `curitorch.stages`: curifactory stages that launch, evaluate and report a training run.

Importing any of these imports neither torch nor Lightning.
"""

__version__ = "0.1.0"
