"""DECIDE: the policy and the values it works on. No files, clock, log, environment or chance."""
