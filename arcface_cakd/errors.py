"""The one family of errors that a user's mistake raises."""


class ArcfaceCakdError(Exception):
    """A user's mistake. Its text is one line: what is wrong, where, what to do.

    The command line prints that line and exits 1, without a traceback. Each room derives its
    own error from this class; everything else that is raised is a fault of ours.
    """


class ArcfaceCakdWarning(UserWarning):
    """Something that a user should know and that does not stop the work."""
