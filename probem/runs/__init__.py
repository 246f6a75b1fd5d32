"""What a command leaves behind, and what it is told: folders of results, configuration, exit codes."""
