"""The commands of attfc-plan, one file each, once their options are checked."""
