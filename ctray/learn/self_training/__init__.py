"""Self-training: boxes of many volumes teach one network what sample looks like."""
