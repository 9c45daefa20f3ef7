"""The data sets of an experiment: the paper's and Fashion-MNIST by name, anything else by its path."""
