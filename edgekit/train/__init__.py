"""Networks and fine-tuning: from a `DatasetIndex` to a `Checkpoint`."""
