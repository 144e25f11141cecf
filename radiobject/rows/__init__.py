"""Rows of tables: conditions, selections and pandas."""
