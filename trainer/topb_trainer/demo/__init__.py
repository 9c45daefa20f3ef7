"""Provide the images and draw the contact sheet of `topb demo`."""
