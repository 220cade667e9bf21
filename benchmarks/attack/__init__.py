"""The attack: damaged inputs, kills, power cuts, full disks and rivals against the commands, with what counts as right."""
