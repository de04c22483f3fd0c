"""Preference data from a model's own answers: sample, judge, agree, write (`task=preferences`)."""
