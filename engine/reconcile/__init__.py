"""The pure core of reconciling: desired and observed in, a plan out. No clock, no I/O."""
