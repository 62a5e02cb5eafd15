"""The contract of tests that every store keeps: ours, and one of your own that inherits it.

    from curitorch.external.stores.testing import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def recipe(self, tmp_path):
            return "my_package.my_store:MyStore", f"folder={tmp_path}"

`StoreContract` is imported on first use: the child processes of its tests do without pytest.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import StoreContract

__all__ = ["StoreContract"]


def __getattr__(name: str) -> object:
    """Import the contract when it is asked for (PEP 562), its asserts telling values to pytest."""
    if name != "StoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    parts = ("keeping", "sharing", "damage", "checksums", "leases", "elsewhere", "kills")
    for part in ("store_case", *parts):
        pytest.register_assert_rewrite(f"{__name__}.{part}")
    from .contract import StoreContract

    return StoreContract
