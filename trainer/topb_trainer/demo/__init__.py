"""The parts of `topb demo`: its images and its contact sheet."""
