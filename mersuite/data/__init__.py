"""From stored features to batches: windows, splits, datasets."""
