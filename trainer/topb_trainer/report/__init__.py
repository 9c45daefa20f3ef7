"""Turn the records of an experiment into tables and figures, in which every mean is given with its n."""
