"""The engine: experiment to parameters, parameters to a problem, problem to results."""
