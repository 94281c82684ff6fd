"""The pretext tasks: encoder, examples, sorting, rotation, training loop, checkpoints."""
