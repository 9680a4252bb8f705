"""The guard's Unix socket: messages (pure), server (in the guard's loop), client."""
