"""Modules: parameters and one op call each."""
