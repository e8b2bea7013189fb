"""What is trained: blocks, heads, objectives, noise, optimizers and the `Stage` they form."""
