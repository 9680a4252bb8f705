"""SETTINGS: tables of settings, read into rules, or every problem at once."""
