"""The agent: one per GPU container or host. It reports slots, starts workers, and says what the kernel says.

`inventory` finds the slots, `locks` keeps one kernel lock per slot, `children` starts and stops workers, `prove_free` proves
slots free, `control` answers the scheduler's messages, `stream` carries them. Nothing here needs arrays.
"""
