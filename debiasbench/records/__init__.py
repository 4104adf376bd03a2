"""Records of runs, where they are stored, and the metrics that follow from them."""
