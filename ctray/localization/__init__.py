"""Finds the box of a sample from the evidence of networks and grey values."""
