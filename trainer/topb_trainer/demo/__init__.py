"""The images and the contact sheet of `topb demo`."""
