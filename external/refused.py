"""What was asked of a trainer cannot be done, and the user can mend it."""


class Refused(ValueError):
    """The message is one sentence: what was found, what was expected, what to do."""
