"""What a save is wanted for, from the least to the most urgent."""

from enum import IntEnum


class Wish(IntEnum):
    """HOLD is a copy in memory, for an error; SAVE a checkpoint; STOP one, and then the end."""

    NOTHING = 0
    HOLD = 1
    SAVE = 2
    STOP = 3
