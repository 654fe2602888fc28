"""Photographs made aligned crops: where the faces are, which one is taken, how it is cropped."""
