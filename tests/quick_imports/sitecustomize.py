"""Every Python process that a test starts does this first, for tests/conftest.py put it there."""

import torchmetrics_alone  # noqa: F401
