"""What every room may use: logs, wording, processes, ports."""
