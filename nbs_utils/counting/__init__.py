"""What a network is and costs: parameters, multiply-adds, fields, time and memory.

Read in this order: `operations` follows the calls of a network and counts them,
`receptive` asks which pixels an output sees, `speed` measures on the device at hand.
"""

from .operations import (
    Call,
    count_macs,
    count_parameters,
    on_meta,
    show_shape,
    stage_table,
    trace,
)
from .receptive import ReceptiveField, receptive_field, receptive_field_formula
from .speed import Memory, Speed, peak_memory, throughput

__all__ = [
    "Call",
    "Memory",
    "ReceptiveField",
    "Speed",
    "count_macs",
    "count_parameters",
    "on_meta",
    "peak_memory",
    "receptive_field",
    "receptive_field_formula",
    "show_shape",
    "stage_table",
    "throughput",
    "trace",
]
