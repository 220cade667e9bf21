"""What the terminal shows: tables, charts, panels."""
