"""The channels: each sends one letter, within a time limit, and says what became of it.

Rule: a channel raises nothing it can foresee; what it returns never holds a secret.
"""
