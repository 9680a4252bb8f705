"""The flight recorder: what was seen, decided and done, so that it can be replayed."""
