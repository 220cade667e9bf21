"""Where the time of a train step goes: its phases timed, its operators counted, and the ceilings of the device."""
