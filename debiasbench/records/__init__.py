"""What came of runs: records, where they are stored, and the metrics that follow from them."""
