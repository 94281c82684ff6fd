"""The file formats: which are read, by which reader, and which are only counted.

To add a format, write a `VolumeSource` in a module of its own and add one line to `FORMATS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ctray.core.errors import InvalidVolumeError
from ctray.formats.hdf5.source import Hdf5Source
from ctray.formats.raw.source import RawSource
from ctray.formats.slices.dicom import DicomSource
from ctray.formats.slices.edf import EdfSource
from ctray.formats.slices.images import JPEG2000_SUFFIXES, PNG_SUFFIXES, ImageFolderSource
from ctray.formats.source import VolumeSource
from ctray.formats.tiff.folder import TiffFolderSource
from ctray.formats.tiff.source import TiffSource
from ctray.formats.zarr import ZarrSource

# Fewer numbered pictures are figures, not the slices of a scan.
_MIN_PICTURES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A file format that ctray knows by its suffix.

    Parameters
    ----------
    name
        The format as users see it: `NRRD (.nrrd)`.
    suffixes
        Ends of file names, in lower case.
    file
        Reader of one file that is a volume; None if such a file is no volume or is not read.
    slices
        Reader of a folder of numbered files, one slice each; None likewise.
    signatures
        First bytes of such files. They identify files without a known suffix.
    is_sliced
        Whether numbered files in one folder count as one stack; always so with a `slices` reader.
    min_files
        Stacks of fewer files are ignored: they are figures.
    needs_header
        Whether the files hold bare voxels that another file describes.
    """

    name: str
    suffixes: tuple[str, ...]
    file: type[VolumeSource] | None = None
    slices: type[VolumeSource] | None = None
    signatures: tuple[bytes, ...] = ()
    is_sliced: bool = False
    min_files: int = 1
    needs_header: bool = False


TIFF = Format(
    name="TIFF (.tif)",
    suffixes=TiffFolderSource.suffixes,
    file=TiffSource,
    slices=TiffFolderSource,
    signatures=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
)
N5 = Format(name="N5 (.n5)", suffixes=())

# The formats that are read come first.
FORMATS: tuple[Format, ...] = (
    TIFF,
    Format(
        name="HDF5 or NeXus (.h5, .nxs)",
        suffixes=(".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx", ".nexus"),
        file=Hdf5Source,
        signatures=(b"\x89HDF\r\n\x1a\n",),
    ),
    Format(name="Zarr (.zarr, .zarr.zip)", suffixes=(".zarr.zip", ".ozx"), file=ZarrSource),
    Format(name="MetaImage (.mhd, .mha)", suffixes=(".mhd", ".mha"), file=RawSource),
    Format(name="NRRD (.nrrd, .nhdr)", suffixes=(".nrrd", ".nhdr"), file=RawSource),
    Format(
        name="raw voxels with .info or .vgi",
        suffixes=(".vol.info", ".raw.info", ".vgi"),
        file=RawSource,
    ),
    Format(
        name="PNG slices", suffixes=PNG_SUFFIXES, slices=ImageFolderSource, min_files=_MIN_PICTURES
    ),
    Format(
        name="JPEG 2000 slices",
        suffixes=JPEG2000_SUFFIXES,
        slices=ImageFolderSource,
    ),
    Format(name="EDF (.edf)", suffixes=EdfSource.suffixes, slices=EdfSource),
    Format(name="DICOM (.dcm)", suffixes=DicomSource.suffixes, slices=DicomSource),
    # Not read, only counted.
    Format(
        name="compressed TIFF (.tif.gz)",
        suffixes=tuple(
            f".{image}.{packer}"
            for image in ("tif", "tiff")
            for packer in ("gz", "bz2", "xz", "zst", "zip")
        ),
    ),
    Format(name="compressed EDF (.edf.gz)", suffixes=(".edf.gz",), is_sliced=True),
    Format(
        name="JPEG slices",
        suffixes=(".jpg", ".jpeg"),
        is_sliced=True,
        min_files=_MIN_PICTURES,
    ),
    Format(name="BMP slices", suffixes=(".bmp",), is_sliced=True, min_files=_MIN_PICTURES),
    Format(name="CBF (.cbf)", suffixes=(".cbf",), is_sliced=True),
    Format(name="HIS (.his)", suffixes=(".his",), is_sliced=True),
    Format(name="FITS (.fits)", suffixes=(".fits",), is_sliced=True),
    Format(
        name="raw voxels without a known header (.raw, .vol)",
        suffixes=(".raw", ".vol", ".zraw", ".raw.gz"),
        needs_header=True,
    ),
    Format(name="Amira (.am)", suffixes=(".am",)),
    Format(name="Imaris (.ims)", suffixes=(".ims",)),
    Format(name="Zeiss TXRM (.txrm, .txm)", suffixes=(".txrm", ".txm")),
    Format(name="NIfTI or Analyze (.nii, .hdr)", suffixes=(".nii", ".nii.gz", ".hdr")),
    Format(name="MRC (.mrc, .rec)", suffixes=(".mrc", ".rec")),
    Format(name="Gatan (.dm3, .dm4)", suffixes=(".dm3", ".dm4")),
    Format(name="NumPy (.npy, .npz)", suffixes=(".npy", ".npz")),
    Format(name="MATLAB (.mat)", suffixes=(".mat",)),
    Format(name="VTK (.vti, .vtk)", suffixes=(".vti", ".vtk")),
    Format(name="Scanco (.isq, .aim)", suffixes=(".isq", ".aim")),
    Format(name="VGStudio project (.vgl)", suffixes=(".vgl",)),
    Format(name="Nikon project (.xtekct)", suffixes=(".xtekct",)),
    Format(name="KLB (.klb)", suffixes=(".klb",)),
    Format(name="B3D (.b3d)", suffixes=(".b3d",)),
    Format(
        name="packed folders (.zip, .tar, .7z)",
        suffixes=(".zip", ".tar", ".tar.gz", ".tgz", ".7z"),
    ),
    Format(
        name="microscope formats (.czi, .lif, .nd2, ...)",
        suffixes=(".czi", ".lif", ".nd2", ".oib", ".vsi"),
    ),
)

_BY_SUFFIX: dict[str, Format] = {}
_BY_SIGNATURE: dict[bytes, Format] = {}
# `ZarrSource` tells OME-Zarr from bare Zarr when it is open.
_READERS: dict[str, type[VolumeSource]] = {"ome-zarr": ZarrSource}


def register(known: Format) -> None:
    """Add a format and its readers to the tables that every lookup uses."""
    _BY_SUFFIX.update(dict.fromkeys(known.suffixes, known))
    _BY_SIGNATURE.update(dict.fromkeys(known.signatures, known))
    for reader in (known.file, known.slices):
        if reader is not None:
            _READERS[reader.kind] = reader


for _format in FORMATS:
    register(_format)


def format_of(name: str) -> Format | None:
    """Format of a file by its name; None for files that hold no voxels."""
    return _BY_SUFFIX.get(_suffix(name))


def format_by_content(head: bytes) -> Format | None:
    """Format of a file by its first bytes; None if no reader claims them."""
    found = (known for start, known in _BY_SIGNATURE.items() if head.startswith(start))
    return next(found, None)


def reader_of(kind: str) -> type[VolumeSource]:
    """Reader of volumes of a `VolumeSource.kind`; `InvalidVolumeError` if there is none."""
    try:
        return _READERS[kind]
    except KeyError:
        known = ", ".join(sorted(_READERS))
        raise InvalidVolumeError(
            f"no reader for volumes of kind {kind!r}; known: {known}"
        ) from None


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and suffix of the name of a volume; an empty suffix if its format is not read.

    The suffix of `scan.ome.tif` is `.tif`, its stem is `scan`.
    """
    suffix = _suffix(name)
    known = _BY_SUFFIX.get(suffix)
    if name.lower().endswith(".zarr"):
        suffix = ".zarr"
    elif known is None or known.file is None:
        return name, ""
    stem = name[: -len(suffix)]
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem, suffix


def _suffix(name: str) -> str:
    """Known suffix of a name, in lower case, of two parts if possible: ".vol.info"; else ""."""
    parts = name.lower().split(".")
    for count in (2, 1):
        suffix = "." + ".".join(parts[-count:])
        if len(parts) > count and suffix in _BY_SUFFIX:
            return suffix
    return ""
