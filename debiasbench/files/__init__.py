"""Files of data sets: downloads, archives, images, decoded tasks and imported data."""
