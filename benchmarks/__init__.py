"""What the issues promise, measured: `python -m benchmarks NAME`."""
