"""From files to pixels: decoding, the printable preprocessing, and the augmentation of training.

Needs numpy, Pillow and simplejpeg, no torch.
"""

from taxonet.images.augmentation import Augmentation
from taxonet.images.decode import Header, Source, decode, read_header
from taxonet.images.preprocessing import Preprocessing
from taxonet.images.source import DEFAULT_LIMITS, Limits

__all__ = [
    "DEFAULT_LIMITS",
    "Augmentation",
    "Header",
    "Limits",
    "Preprocessing",
    "Source",
    "decode",
    "read_header",
]
