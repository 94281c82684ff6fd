"""Self-supervised learning: encoder, pretext tasks, examples, training loop, checkpoints."""
