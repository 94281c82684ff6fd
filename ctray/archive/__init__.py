"""Finding the volumes of an archive, and bringing them in."""
