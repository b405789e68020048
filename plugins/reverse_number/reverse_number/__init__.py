"""Flows that reverse the digits of numbers."""

from reverse_number.flows import (
    ReverseNumberAtomicFlow,
    ReverseNumberSequentialFlow,
    ReverseNumbersFlow,
)

__all__ = ["ReverseNumberAtomicFlow", "ReverseNumberSequentialFlow", "ReverseNumbersFlow"]
