"""Learning without labels: pretext tasks, and self-training on their boxes."""
