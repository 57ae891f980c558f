"""Tracing of torch functions into ATen graphs."""
