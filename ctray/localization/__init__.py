"""From what the network is certain of to boxes, and how good those boxes are."""
