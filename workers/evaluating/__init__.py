"""What `onward evaluate` does: features of a trained network, and everything that is measured on them."""
