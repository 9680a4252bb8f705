"""The mouth: alerts, desktop notes, own commands. Unprivileged; the guard never waits for it."""
