"""FPGA's method without sockets: see the package of each part of the paper."""
