"""From what the networks and grey values say of a volume to its box."""
