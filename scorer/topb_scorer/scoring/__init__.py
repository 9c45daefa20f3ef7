"""Score images, and store the rows in score logs."""
