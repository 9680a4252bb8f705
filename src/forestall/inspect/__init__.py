"""Kernel readings and the core's judgement, for people."""
