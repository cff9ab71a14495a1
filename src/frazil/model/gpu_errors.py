"""NVIDIA's GPU errors (Xid numbers) in two classes.

A program's own error leaves the GPU healthy; the list is that of NVIDIA's Kubernetes device plugin
(NVIDIA/k8s-device-plugin, internal/rm/health.go). Every other error, and a GPU that no longer answers, takes the GPU out of
service until a person has looked (https://docs.nvidia.com/deploy/xid-errors).
"""

from __future__ import annotations

PROGRAM_XIDS = frozenset({13, 31, 43, 45, 68, 109})
NO_ANSWER = 0

_MEANINGS = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "stopped processing",
    45: "channel torn down",
    48: "double-bit memory error",
    63: "memory row remapped",
    64: "memory row could not be remapped",
    74: "NVLink error",
    79: "fallen off the bus",
    92: "high rate of single-bit memory errors",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "GPU firmware timeout",
    120: "GPU firmware error",
}


def is_programs_own(xid: int) -> bool:
    """Tell whether an error is the program's own, so that the GPU can be used again."""
    return xid in PROGRAM_XIDS


def describe(xid: int) -> str:
    """Return a few words, e.g. "Xid 79: fallen off the bus"."""
    if xid == NO_ANSWER:
        return "it no longer answers"
    return f"Xid {xid}: {_MEANINGS[xid]}" if xid in _MEANINGS else f"Xid {xid}"
