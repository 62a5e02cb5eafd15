"""What the SDK raises; the names and their families are PeriFlow's."""


class PeriFlowError(Exception):
    """The SDK was used in a way that cannot be meant; the message says what to do."""


class NotInitialized(PeriFlowError, AssertionError):
    """A function was called before `init`. PeriFlow raises a bare AssertionError."""


class PeriFlowInternalError(PeriFlowError):
    """Whoever launched this process did not announce what the SDK needs."""
