"""All of the contract: what a store keeps, and what it survives."""

from .checksums import Checksums
from .damage import Damage
from .elsewhere import Elsewhere
from .keeping import Keeping
from .kills import Kills
from .leases import Leases
from .sharing import Sharing


class StoreContract(Keeping, Sharing, Damage, Checksums, Leases, Elsewhere, Kills):
    """Inherit from it under a name that begins with Test, and override the fixture `recipe`.

    The rest of `StoreCase` is optional: what is not given is skipped, and the reason said.
    The test with many kills has the markers `slow`, and `timeout` of pytest-timeout: under
    --strict-markers name them in your pytest settings.
    """
