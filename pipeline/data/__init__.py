"""Data sets, the two-view augmentation and the order of samples."""
