"""Comparing search methods: a grid of searches and trainings, its table, figures and report."""
