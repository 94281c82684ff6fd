"""Reading one volume of any format: TIFF, HDF5, Zarr, raw files, folders of slices."""
