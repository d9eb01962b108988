"""The one way a check says no."""


class CheckFailed(Exception):
    """An export does not meet its contract; the message says where and how."""
