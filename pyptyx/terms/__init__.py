"""Terms of the objective: ``value = term(x, g)`` reads the variables and adds its gradient."""
