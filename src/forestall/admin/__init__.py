"""What an administrator changes: the service, protection, units. It can all be undone."""
