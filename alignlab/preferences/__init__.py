"""The preference factory: answers are sampled, judged, and written down as data to learn from (`task=preferences`)."""
