"""Which format a file is of, by its name: those that are read, and those that are only told."""

from __future__ import annotations

from dataclasses import dataclass

from ctray.formats.source import Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """A format of files.

    Parameters
    ----------
    name
        As it is told: `NRRD (.nrrd)`.
    kind
        How a file of it is opened as a volume; None where ctray does not read it.
    sliced
        Whether the files are slices: numbered files in one folder are one thing.
    pictures
        Whether most files of it are pictures for people: fewer than `MIN_PICTURES` numbered ones
        are nothing to speak of.
    is_bare
        Whether a file of it has no header of its own, and may belong to another file that does.
    """

    name: str
    kind: Kind | None = None
    sliced: bool = False
    pictures: bool = False
    is_bare: bool = False


# Fewer numbered PNGs are figures, not the slices of a scan.
MIN_PICTURES = 10
# Voxels whose shape and type stand in another file; told unless a header that is read names them.
_BARE = Format(name="raw voxels without a header that is read (.raw, .vol)", is_bare=True)
_PACKED_TIFF = Format(name="TIFF packed as a whole (.tif.gz)")
_NIFTI = Format(name="NIfTI or Analyze (.nii, .hdr)")
_DICOM = Format(name="DICOM (.dcm)", kind="dicom", sliced=True)
_EDF = Format(name="EDF (.edf)", kind="edf", sliced=True)
_MICROSCOPE = "microscope formats (.czi, .lif, .nd2, ...)"

# By suffix, the longer ones before those that they end in.
_FORMATS: dict[str, Format] = {
    ".zarr.zip": Format(name="zipped Zarr (.zarr.zip)", kind="zarr"),
    ".ozx": Format(name="zipped Zarr (.zarr.zip)", kind="zarr"),
    **{
        f".{image}.{packer}": _PACKED_TIFF
        for image in ("tif", "tiff")
        for packer in ("gz", "bz2", "xz", "zst", "zip")
    },
    ".nii.gz": _NIFTI,
    ".edf.gz": Format(name="EDF packed as a whole (.edf.gz)", sliced=True),
    ".vol.info": Format(name="raw voxels with .info", kind="raw"),
    ".raw.info": Format(name="raw voxels with .info", kind="raw"),
    ".mhd": Format(name="MetaImage (.mhd)", kind="raw"),
    ".mha": Format(name="MetaImage (.mha)", kind="raw"),
    ".vgi": Format(name="raw voxels with .vgi", kind="raw"),
    ".nrrd": Format(name="NRRD (.nrrd)", kind="raw"),
    ".nhdr": Format(name="NRRD (.nhdr)", kind="raw"),
    ".png": Format(name="PNG slices", kind="image-folder", sliced=True, pictures=True),
    ".jpg": Format(name="JPEG slices", sliced=True, pictures=True),
    ".jpeg": Format(name="JPEG slices", sliced=True, pictures=True),
    ".bmp": Format(name="BMP slices", sliced=True, pictures=True),
    ".edf": _EDF,
    ".dcm": _DICOM,
    ".dicom": _DICOM,
    ".ima": _DICOM,
    ".cbf": Format(name="CBF (.cbf)", sliced=True),
    ".his": Format(name="HIS (.his)", sliced=True),
    ".raw": _BARE,
    ".vol": _BARE,
    ".zraw": _BARE,
    ".raw.gz": _BARE,
    ".am": Format(name="Amira (.am)"),
    ".ims": Format(name="Imaris (.ims)"),
    ".txrm": Format(name="Zeiss TXRM (.txrm, .txm)"),
    ".txm": Format(name="Zeiss TXRM (.txrm, .txm)"),
    ".nii": _NIFTI,
    ".hdr": _NIFTI,
    ".mrc": Format(name="MRC (.mrc, .rec)"),
    ".rec": Format(name="MRC (.mrc, .rec)"),
    ".dm3": Format(name="Gatan (.dm3, .dm4)"),
    ".dm4": Format(name="Gatan (.dm3, .dm4)"),
    ".npy": Format(name="NumPy (.npy, .npz)"),
    ".npz": Format(name="NumPy (.npy, .npz)"),
    ".mat": Format(name="MATLAB (.mat)"),
    ".vti": Format(name="VTK (.vti, .vtk)"),
    ".vtk": Format(name="VTK (.vti, .vtk)"),
    ".isq": Format(name="Scanco (.isq, .aim)"),
    ".aim": Format(name="Scanco (.isq, .aim)"),
    ".vgl": Format(name="VGStudio project (.vgl)"),
    ".xtekct": Format(name="Nikon project (.xtekct)"),
    ".fits": Format(name="FITS (.fits)", sliced=True),
    ".klb": Format(name="KLB (.klb)"),
    ".b3d": Format(name="B3D (.b3d)"),
    ".zip": Format(name="packed folders (.zip, .tar, .7z)"),
    ".tar": Format(name="packed folders (.zip, .tar, .7z)"),
    ".tar.gz": Format(name="packed folders (.zip, .tar, .7z)"),
    ".tgz": Format(name="packed folders (.zip, .tar, .7z)"),
    ".7z": Format(name="packed folders (.zip, .tar, .7z)"),
    **{
        suffix: Format(name="JPEG 2000 slices", kind="image-folder", sliced=True)
        for suffix in (".jp2", ".j2k", ".jpf", ".jpx", ".j2c")
    },
    **{suffix: Format(name=_MICROSCOPE) for suffix in (".czi", ".lif", ".nd2", ".oib", ".vsi")},
}
N5 = Format(name="N5 (.n5)")


def format_of(name: str) -> Format | None:
    """Format of a file beside TIFF, HDF5 and Zarr; None for what holds no voxels by its name."""
    parts = name.lower().split(".")
    # Two parts at most: "scan.0001.vol.info" ends in ".vol.info".
    for count in (2, 1):
        if len(parts) > count:
            found = _FORMATS.get("." + ".".join(parts[-count:]))
            if found is not None:
                return found
    return None


__all__ = ["MIN_PICTURES", "N5", "Format", "format_of"]
