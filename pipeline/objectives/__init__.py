"""The self-supervised losses, one file each."""
