"""The objectives that come with the package. Importing this registers them."""

from . import maxk as maxk
from . import rivals as rivals
