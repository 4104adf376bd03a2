"""Image files as tensors: read one, decode many, scale and crop."""

from debiasbench.files.images.decoding import decode as decode
from debiasbench.files.images.reading import BadImage as BadImage
from debiasbench.files.images.reading import read as read
from debiasbench.files.images.shapes import Shape as Shape
from debiasbench.files.images.shapes import chained as chained
from debiasbench.files.images.shapes import cropped as cropped
from debiasbench.files.images.shapes import stretched as stretched
