"""What is picked: budgets and options, the total order, accounts, pointwise and set-based selection."""
