"""All of the contract: what a store keeps, and what it survives."""

from .damage import Damage
from .keeping import Keeping
from .kills import Kills
from .leases import Leases


class StoreContract(Keeping, Damage, Leases, Kills):
    """Inherit from it under a name that begins with Test, and override the fixture `recipe`.

    The rest of `StoreCase` is optional: what is not given is skipped, and the reason said.
    The test with many kills has the markers `slow`, and `timeout` of pytest-timeout: under
    --strict-markers name them in your pytest settings.
    """
