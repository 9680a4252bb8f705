"""READ: the only package that opens /proc, cgroupfs, /sys; bytes in, values of the core out."""
