"""What the training programs share: the layout of the data, batches, augmentation, checkpoints."""
