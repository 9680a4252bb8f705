"""The slow hand: a privileged process beside the guard that does whatever may block."""
