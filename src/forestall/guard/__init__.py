"""RUN: the daemon. One loop: wait, sample, step, record, perform."""
