"""What a trained block is worth."""
