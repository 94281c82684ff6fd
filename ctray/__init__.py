"""ctray finds the sample in CT volumes without labels and crops away the rest."""

from importlib.metadata import version

__version__ = version("ctray")
