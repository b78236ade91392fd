"""Optimiser: L-BFGS over variable trees and line searches that see only scalars."""
