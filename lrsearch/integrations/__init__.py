"""Schedules inside the frameworks people use; each module needs its framework installed."""
