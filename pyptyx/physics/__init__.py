"""Physics: grids, optics, and the stages of the forward model, each with its adjoint beside it."""
