"""Errors that a user can act on.

Every message gives what was wrong, the values, and the remedy. The command line prints the
message as one line and exits with ``exit_code``; the traceback shows with ``--debug`` only.
"""


class CtrayError(Exception):
    """Base of every error that a user can cause or mend."""

    exit_code = 1


class ConfigError(CtrayError):
    """A configuration that cannot be used: unknown key, value out of range, unreadable file."""

    exit_code = 2


class GeometryError(CtrayError):
    """A box, shape or voxel size that contradicts itself or its volume."""


class StorageError(CtrayError):
    """A store that failed: connection, time-out, server error."""


class StoreUnavailableError(StorageError):
    """A store that does not answer, or with errors of its own: the same may succeed later."""


class OutageError(StoreUnavailableError):
    """A store that was waited for and stayed away: nothing else can be read or written either."""


class NotFoundError(StorageError):
    """A URL at which nothing is."""


class AccessError(StorageError):
    """Keys that are missing, wrong or not allowed to do this."""


class KeysError(AccessError):
    """Keys that the store refuses whatever they are used for: wrong or expired."""


class DiskFullError(StorageError):
    """No space left where something was to be written."""


class OutputExistsError(StorageError):
    """An output that exists already; ctray never overwrites."""


class RunInUseError(CtrayError):
    """A run folder that another process writes into."""


class InvalidVolumeError(CtrayError):
    """Data that is no usable volume: unreadable, wrong dimensions, empty, constant.

    Attributes
    ----------
    voxels_ids, part_ids
        Which stored voxels the data hold, and take from other files, as far as that is known;
        see `ctray.archive.inspection`.
    """

    voxels_ids: tuple[str, ...] = ()
    part_ids: tuple[str, ...] = ()


class NoVolumeError(InvalidVolumeError):
    """Readable data without a volume, such as one 2D image: nothing is wrong with them."""


class NotReconstructedError(NoVolumeError):
    """A raw scan: projections from which no volume was reconstructed yet."""


class CheckpointError(CtrayError):
    """A checkpoint that is missing, damaged or does not fit what it is used for."""


class TrainingError(CtrayError):
    """Training that cannot go on: loss not finite, nothing to train on."""


class RayStartError(CtrayError):
    """A Ray session of this machine that does not start."""


class JobError(CtrayError):
    """A job on a cluster that cannot be submitted, failed or was stopped, or its cluster."""


class PartialFailureError(CtrayError):
    """A run that finished, but in which some volumes failed."""

    exit_code = 3


def one_line(error: BaseException) -> str:
    """Message of an error, without line breaks."""
    return " ".join(str(error).split())


def printable(text: object, keep: str = "") -> str:
    r"""Text that does no more than show itself.

    Whoever writes an archive chooses its names. Escape sequences in them move the cursor, set the
    title or write to the clipboard of the terminal that shows them; control characters for the
    direction of writing disguise a name. All of these become visible: ``\x1b``, ``\u202e``.

    Parameters
    ----------
    text
        What is to be shown.
    keep
        Characters that stay although they do not print, such as a line break.
    """
    raw = str(text)
    if raw.isprintable():
        return raw
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in raw
    )
