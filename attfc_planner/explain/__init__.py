"""Why a profile needs its memory, what each knob changes, how many identities fit."""
